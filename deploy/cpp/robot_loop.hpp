// The control loop: at each control period read the state, run the policy, limit the control, write it; stop the robot
// safely when something is wrong. deploy/python/robot_loop.py is the same in Python. Linux, C++17.
#pragma once

#include <time.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>

#include "hardware.hpp"
#include "limits.hpp"
#include "policy.hpp"
#include "statistics.hpp"

namespace robot_loop {

constexpr double kPeriod = policy::kControlDt;
constexpr double kSpin = 1e-4;              // s before a deadline in which the clock is watched instead of sleeping
constexpr double kSampleTolerance = 1e-4;   // on the stored sample's action
constexpr double kShareOfPeriodToWait = 0.5;  // for a state that is late; then the last control is held

inline std::atomic<bool> interrupted{false};  // set by a signal handler

// s of the monotonic clock.
inline double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

inline void sleep_until(double deadline) {
    const double wake = deadline - kSpin;
    timespec t;
    t.tv_sec = static_cast<time_t>(wake);
    t.tv_nsec = static_cast<long>(1e9 * (wake - static_cast<double>(t.tv_sec)));
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, nullptr) == EINTR && !interrupted) {
    }
    while (now() < deadline && !interrupted) {
    }
}

struct Options {
    std::int64_t steps = std::numeric_limits<std::int64_t>::max();  // control periods to run
    bool lockstep = false;        // no pace: one control for each state
    int max_missed = 5;           // consecutive deadlines
    double timeout = 0.0;         // s without a state; 0: 5 control periods, or 10 s in lockstep
    double wait = 10.0;           // s for the first state
    double rate_limit = std::numeric_limits<double>::infinity();  // greatest change of a control per period
    double position_margin = 0.1;
    double velocity_factor = 2.0;
    float dial = 1.0F;
    std::array<float, std::max(policy::kCommands, 1)> commands{};
};

enum Exit { kFinished = 0, kRefused = 2, kStopped = 3 };

inline bool finite(const float* values, int n) {
    return std::all_of(values, values + n, [](float value) { return std::isfinite(value); });
}

class RobotLoop {
public:
    RobotLoop(Hardware& hardware, const Options& options)
        : hardware_(hardware), options_(options), limits_(options.position_margin, options.velocity_factor) {
        if (options_.timeout == 0.0) options_.timeout = options_.lockstep ? 10.0 : 5 * kPeriod;
        controller_.dial = options_.dial;
    }

    // Run until something ends it; the robot is stopped in any case.
    Exit run() {
        const Exit exit = loop();
        hardware_.stop(reason_.c_str());
        std::fprintf(stderr, "robot_loop: %s: %s\n", exit == kStopped ? "safe stop" : "stopped", reason_.c_str());
        return exit;
    }

    // One line: what happened, and how long it took.
    std::string summary(Exit exit) const {
        char text[512];
        std::snprintf(text, sizeof text,
                      "{\"loop\": \"cpp\", \"task\": \"%s\", \"exit\": %d, \"reason\": \"%s\", \"steps\": %lld, "
                      "\"missed_deadlines\": %lld, \"missing_states\": %lld, \"limited_controls\": %lld, ",
                      policy::kTask, exit, reason_.c_str(), static_cast<long long>(steps_), static_cast<long long>(missed_),
                      static_cast<long long>(missing_), static_cast<long long>(limited_));
        return text + ("\"inference_us\": " + inference_.json()) + ", \"period_jitter_us\": " + period_jitter_.json() +
               ", \"control_jitter_us\": " + control_jitter_.json() + "}";
    }

private:
    Exit loop() {
        Read read = hardware_.read(state_, options_.wait);
        if (read == Read::timeout) return refuse("the robot sends no state");
        double deadline = now(), last_state = deadline, last_wake = deadline, last_write = deadline;
        controller_.begin(state_);
        while (true) {
            if (interrupted) return finish("interrupted");
            if (read == Read::closed) return finish("the robot has ended the run");
            if (read == Read::stopped) return stop("the robot has stopped by itself");
            if (read == Read::ok) {
                last_state = now();
                if (!decide()) return kStopped;
            } else {
                ++missing_;  // hold the last control
                if (now() - last_state >= options_.timeout) return stop("no state for " + number(options_.timeout) + " s");
            }
            hardware_.write({control_.data(), controller_.action(), options_.commands.data()});
            const double written = now();
            if (!options_.lockstep) {
                if (steps_ > 0) control_jitter_.add(std::fabs(written - last_write - kPeriod));
                last_write = written;
                if (!keep_pace(written, deadline)) return stop(number(options_.max_missed) + " consecutive deadlines missed");
            }
            if (++steps_ == options_.steps) return finish("all steps made");
            if (!options_.lockstep) {
                deadline += kPeriod;
                sleep_until(deadline);
                const double woken = now();
                period_jitter_.add(std::fabs(woken - last_wake - kPeriod));
                last_wake = woken;
            }
            read = hardware_.read(state_, options_.lockstep ? options_.timeout : kShareOfPeriodToWait * kPeriod);
        }
    }

    // From a state to a control within the limits; false: something is wrong.
    bool decide() {
        if (!check_state()) return false;
        hardware_.commands(options_.commands.data());
        for (int i = 0; i < policy::kCommands; ++i) controller_.set_command(i, options_.commands[i]);
        const double began = now();
        const float* control = controller_.act(state_);
        inference_.add(now() - began);
        if (!finite(controller_.observation(), policy::kObservations)) return wrong("the observation is not finite");
        if (!finite(controller_.action(), policy::kActions)) return wrong("the action is not finite");
        if (!finite(control, policy::kActions)) return wrong("the control is not finite");
        limit(control);
        return true;
    }

    bool check_state() {
        if (!finite(state_.qpos, policy::kNq) || !finite(state_.qvel, policy::kNv) ||
            !finite(state_.contact_wrench, 6 * policy::kContactBodies)) {
            return wrong("the state is not finite");
        }
        for (int i = 0; i < policy::kActions; ++i) {
            if (policy::kQposColumn[i] < 0) continue;  // acts on no joint
            const float position = state_.qpos[policy::kQposColumn[i]], velocity = state_.qvel[policy::kQvelColumn[i]];
            if (position < limits_.position_low[i] || position > limits_.position_high[i]) {
                return wrong(std::string("joint ") + policy::kActuatorJoints[i] + " is at " + number(position) + ", outside [" +
                             number(limits_.position_low[i]) + ", " + number(limits_.position_high[i]) + "]");
            }
            if (std::fabs(velocity) > limits_.velocity[i]) {
                return wrong(std::string("joint ") + policy::kActuatorJoints[i] + " moves at " + number(velocity) + ", beyond " +
                             number(limits_.velocity[i]));
            }
        }
        return true;
    }

    void limit(const float* control) {
        bool limited = false;
        for (int i = 0; i < policy::kActions; ++i) {
            float low = limits_.control_low[i], high = limits_.control_high[i];
            if (steps_ > 0) {
                const float rate = static_cast<float>(options_.rate_limit);
                low = std::max(low, control_[i] - rate);
                high = std::min(high, control_[i] + rate);
            }
            control_[i] = std::clamp(control[i], low, high);
            limited = limited || control_[i] != control[i];
        }
        limited_ += limited;
    }

    // Count the deadlines that have passed unused, and go on with the next; false: too many in a row.
    bool keep_pace(double written, double& deadline) {
        const auto passed = static_cast<std::int64_t>((written - deadline) / kPeriod);
        deadline += static_cast<double>(passed) * kPeriod;
        missed_ += passed;
        consecutive_ = passed > 0 ? consecutive_ + passed : 0;
        return consecutive_ < options_.max_missed;
    }

    static std::string number(double value) {
        char text[32];
        std::snprintf(text, sizeof text, "%g", value);
        return text;
    }

    bool wrong(const std::string& reason) {
        reason_ = reason;
        return false;
    }

    Exit finish(const std::string& reason) { return end(kFinished, reason); }
    Exit refuse(const std::string& reason) { return end(kRefused, reason); }
    Exit stop(const std::string& reason) { return end(kStopped, reason); }
    Exit end(Exit exit, const std::string& reason) {
        reason_ = reason;
        return exit;
    }

    Hardware& hardware_;
    Options options_;
    const Limits limits_;
    policy::Controller controller_;
    State state_{};
    std::array<float, policy::kActions> control_{};
    std::string reason_;
    Samples inference_, period_jitter_, control_jitter_;  // of the wake-ups, and of the controls' departure
    std::int64_t steps_ = 0, missed_ = 0, missing_ = 0, limited_ = 0, consecutive_ = 0;
};

}  // namespace robot_loop
