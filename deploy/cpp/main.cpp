// The program that runs on the robot. Put your own Hardware in place of UdpHardware: docs/deploy.md.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <stdexcept>
#include <string>

#include "limits.hpp"
#include "policy.hpp"
#include "robot_loop.hpp"
#include "udp_hardware.hpp"

namespace {

using namespace robot_loop;

constexpr char kUsage[] =
    "usage: robot_loop --port N [options]\n"
    "  --host A             address of the robot (127.0.0.1)\n"
    "  --port N             its UDP port\n"
    "  --steps N            control periods to run (no end)\n"
    "  --duration S         the same in seconds\n"
    "  --lockstep           one control per state, as fast as they come: for reproducible returns\n"
    "  --command NAME=V     what the operator wants (0, or what is nearest in the trained range)\n"
    "  --dial V             how much of the adapter acts, for policies with a dial (1)\n"
    "  --max-missed N       consecutive missed deadlines until the safe stop (5)\n"
    "  --timeout S          time without a state until the safe stop (5 control periods; 10 s in lockstep)\n"
    "  --wait S             time for the robot to answer (10)\n"
    "  --rate-limit V       greatest change of a control per period, in its unit (none)\n"
    "  --position-margin V  how far beyond a joint's range is allowed, as a share of it (0.1)\n"
    "  --velocity-factor V  greatest joint speed, as a multiple of what the evaluation visited (2)\n"
    "  --limits             print the limits and end\n"
    "  --slow S             make each write take so long, to see the watchdog act\n";

struct Arguments {
    Options loop;
    std::string host = "127.0.0.1";
    int port = 0;
    double slow = 0.0;
    bool print_limits = false;
};

[[noreturn]] void refuse(const std::string& text) { throw std::invalid_argument(text); }

double number(const std::string& name, const std::string& text, double low) {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != '\0' || !(value >= low)) {
        refuse(name + "=" + text + ": a number of at least " + std::to_string(static_cast<int>(low)) + " is expected");
    }
    return value;
}

void set_command(Options& options, const std::string& text) {
    const auto equals = text.find('=');
    std::string allowed;
    for (int i = 0; i < policy::kCommands; ++i) {
        if (text.substr(0, equals) == policy::kCommandNames[i]) {
            const std::string value = equals == std::string::npos ? "" : text.substr(equals + 1);
            const auto given = static_cast<float>(number("--command " + text.substr(0, equals), value, -1e9));
            if (given < policy::kCommandLow[i] || given > policy::kCommandHigh[i]) {
                refuse("--command " + text + ": trained in [" + std::to_string(policy::kCommandLow[i]) + ", " +
                       std::to_string(policy::kCommandHigh[i]) + "]");
            }
            options.commands[i] = given;
            return;
        }
        allowed += std::string(allowed.empty() ? "" : ", ") + policy::kCommandNames[i];
    }
    refuse("--command " + text + ": no such command; allowed are [" + allowed + "]");
}

Arguments parse(int argc, char** argv) {
    Arguments arguments;
    Options& loop = arguments.loop;
    for (int i = 0; i < policy::kCommands; ++i) {
        loop.commands[i] = std::clamp(0.0F, policy::kCommandLow[i], policy::kCommandHigh[i]);
    }
    for (int i = 1; i < argc; ++i) {
        const std::string name = argv[i];
        if (name == "--help") {
            std::printf("%s", kUsage);
            std::exit(kFinished);
        }
        if (name == "--lockstep") {
            loop.lockstep = true;
            continue;
        }
        if (name == "--limits") {
            arguments.print_limits = true;
            continue;
        }
        if (i + 1 == argc) refuse(name + ": no such option, or its value is missing");
        const std::string value = argv[++i];
        if (name == "--host") arguments.host = value;
        else if (name == "--port") arguments.port = static_cast<int>(number(name, value, 1));
        else if (name == "--steps") loop.steps = static_cast<std::int64_t>(number(name, value, 1));
        else if (name == "--duration") loop.steps = std::max<std::int64_t>(1, std::llround(number(name, value, 0) / kPeriod));
        else if (name == "--command") set_command(loop, value);
        else if (name == "--dial") {
            if (!policy::kHasDial) refuse("--dial " + value + ": this policy has no dial; export it with policy=dial");
            loop.dial = static_cast<float>(number(name, value, 0));
            if (loop.dial < policy::kDialLow || loop.dial > policy::kDialHigh) {
                refuse("--dial " + value + ": must be in [" + std::to_string(policy::kDialLow) + ", " +
                       std::to_string(policy::kDialHigh) + "]");
            }
        }
        else if (name == "--max-missed") loop.max_missed = static_cast<int>(number(name, value, 1));
        else if (name == "--timeout") loop.timeout = number(name, value, 0);
        else if (name == "--wait") loop.wait = number(name, value, 0);
        else if (name == "--rate-limit") loop.rate_limit = number(name, value, 0);
        else if (name == "--position-margin") loop.position_margin = number(name, value, 0);
        else if (name == "--velocity-factor") loop.velocity_factor = number(name, value, 0);
        else if (name == "--slow") arguments.slow = number(name, value, 0);
        else refuse(name + ": no such option");
    }
    if (arguments.port == 0 && !arguments.print_limits) refuse("--port: is required");
    return arguments;
}

void print_bounds(const char* name, const Limits::Bounds& bounds, const char* end) {
    std::printf("\"%s\": [", name);
    for (std::size_t i = 0; i < bounds.size(); ++i) {
        const char* comma = i + 1 < bounds.size() ? ", " : "";
        if (std::isfinite(bounds[i])) std::printf("%.9g%s", static_cast<double>(bounds[i]), comma);
        else std::printf("null%s", comma);
    }
    std::printf("]%s", end);
}

void print_limits(const Options& options) {
    const Limits limits(options.position_margin, options.velocity_factor);
    std::printf("{\"actuators\": [");
    for (int i = 0; i < policy::kActions; ++i) std::printf("%s\"%s\"", i > 0 ? ", " : "", policy::kActuatorNames[i]);
    std::printf("], ");
    print_bounds("control_low", limits.control_low, ", ");
    print_bounds("control_high", limits.control_high, ", ");
    print_bounds("position_low", limits.position_low, ", ");
    print_bounds("position_high", limits.position_high, ", ");
    print_bounds("velocity", limits.velocity, "}\n");
}

}  // namespace

int main(int argc, char** argv) {
    try {
        const Arguments arguments = parse(argc, argv);
        if (arguments.print_limits) {
            print_limits(arguments.loop);
            return kFinished;
        }
        const float error = policy::sample_difference();
        if (!(error <= kSampleTolerance)) {
            std::fprintf(stderr, "error: the stored sample's action is off by %g on this machine\n",
                         static_cast<double>(error));
            return kRefused;
        }
        struct sigaction action {};
        action.sa_handler = [](int) { interrupted = true; };
        sigaction(SIGINT, &action, nullptr);
        sigaction(SIGTERM, &action, nullptr);
        UdpHardware hardware(arguments.host, arguments.port, arguments.loop.lockstep, arguments.loop.wait, arguments.slow);
        RobotLoop loop(hardware, arguments.loop);
        const Exit exit = loop.run();
        std::printf("%s\n", loop.summary(exit).c_str());
        return exit;
    } catch (const std::exception& error) {
        if (interrupted) return kFinished;
        std::fprintf(stderr, "error: %s\n%s", error.what(), argc == 1 ? kUsage : "");
        return kRefused;
    }
}
