#include "udp_hardware.hpp"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string_view>

#include "robot_loop.hpp"

namespace robot_loop {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the packets are little-endian");

namespace {

// Kinds of packets, and flags of a state (end, stopped) and of a hello (lockstep).
constexpr std::uint16_t kHello = 1, kWelcome = 2, kState = 3, kControl = 4, kStop = 5;
constexpr std::uint32_t kEnd = 2, kStoppedByItself = 4, kLockstep = 8;

constexpr std::uint32_t kMagic = 0x4c524644;  // "DFRL"
constexpr std::uint16_t kVersion = 1;
constexpr std::size_t kMaxPacket = 65507;
constexpr double kHelloPeriod = 0.05;  // s
constexpr std::size_t kStateFloats = policy::kNq + policy::kNv + 6 * policy::kContactBodies;

// FNV-1a, 64 bit, of names that each end in a line feed.
std::uint64_t hash(std::uint64_t value, std::string_view text) {
    for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
    return value;
}

// The first `count` names; a table without entries has one that is empty.
template <std::size_t Size>
std::uint64_t hash_names(std::uint64_t value, const char* const (&names)[Size], int count) {
    for (const char* name : names) {
        if (count-- > 0) value = hash(hash(value, name), "\n");
    }
    return hash(value, "\n");
}

std::uint64_t fingerprint() {
    std::uint64_t value = 0xcbf29ce484222325U;
    value = hash_names(value, policy::kJointNames, static_cast<int>(std::size(policy::kJointNames)));
    value = hash_names(value, policy::kActuatorNames, policy::kActions);
    return hash_names(value, policy::kContactBodyNames, policy::kContactBodies);
}

}  // namespace

#pragma pack(push, 1)
struct UdpHardware::Header {
    std::uint32_t magic = kMagic;
    std::uint16_t version = kVersion, kind = 0;
    std::uint32_t sequence = 0, flags = 0;
    double time = 0.0;
};

struct UdpHardware::Layout {
    std::uint16_t nq = policy::kNq, nv = policy::kNv, contact_bodies = policy::kContactBodies,
                  actions = policy::kActions, commands = policy::kCommands;
    std::uint64_t fingerprint = robot_loop::fingerprint();
    double control_dt = policy::kControlDt;
};
#pragma pack(pop)

UdpHardware::UdpHardware(const std::string& host, int port, bool lockstep, double wait, double slow)
    : where_("robot=" + host + ":" + std::to_string(port)), slow_(slow), began_(now()) {
    incoming_.resize(kMaxPacket);
    outgoing_.reserve(kMaxPacket);
    payload_.reserve(kMaxPacket);
    answer_.reserve(kMaxPacket);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    if (inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1) {
        throw LinkError(where_ + ": not an IPv4 address");
    }
    socket_ = ::socket(AF_INET, SOCK_DGRAM, 0);
    if (socket_ < 0 || ::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        throw LinkError(where_ + ": " + std::strerror(errno));
    }
    const Layout layout;
    while (now() - began_ < wait && !interrupted) {
        send(kHello, 0, lockstep ? kLockstep : 0, &layout, sizeof layout);
        Header header;
        if (receive(kHelloPeriod, header, payload_) && header.kind == kWelcome) {
            check(payload_);
            return;
        }
    }
    throw LinkError(where_ + ": no robot answers");
}

UdpHardware::~UdpHardware() { ::close(socket_); }

Read UdpHardware::read(State& state, double timeout) {
    const double deadline = now() + timeout;
    Read found = Read::timeout;
    Header header;
    while (receive(found == Read::ok ? 0.0 : std::max(0.0, deadline - now()), header, payload_)) {
        if (header.kind != kState || payload_.size() != kStateFloats * sizeof(float)) continue;
        if (header.flags & kEnd) return Read::closed;
        if (header.flags & kStoppedByItself) return Read::stopped;
        if (static_cast<std::int64_t>(header.sequence) > last_sequence_) {
            last_sequence_ = header.sequence;
            const char* data = payload_.data();
            std::memcpy(state.qpos, data, policy::kNq * sizeof(float));
            std::memcpy(state.qvel, data + policy::kNq * sizeof(float), policy::kNv * sizeof(float));
            std::memcpy(state.contact_wrench, data + (policy::kNq + policy::kNv) * sizeof(float),
                        6 * policy::kContactBodies * sizeof(float));
            found = Read::ok;
        } else if (found == Read::timeout && !answer_.empty()) {
            (void)::send(socket_, answer_.data(), answer_.size(), 0);  // the robot repeats a state: our answer was lost
        }
    }
    return found;
}

void UdpHardware::write(const Output& output) {
    if (slow_ > 0.0) sleep_until(now() + slow_);
    float values[2 * policy::kActions + std::max(policy::kCommands, 1)];
    std::copy_n(output.control, policy::kActions, values);
    std::copy_n(output.action, policy::kActions, values + policy::kActions);
    std::copy_n(output.commands, policy::kCommands, values + 2 * policy::kActions);
    send(kControl, static_cast<std::uint32_t>(last_sequence_), 0, values,
         (2 * policy::kActions + policy::kCommands) * sizeof(float));
    answer_ = outgoing_;
}

void UdpHardware::stop(const char* reason) {
    for (int i = 0; i < 3; ++i) {  // packets get lost
        send(kStop, static_cast<std::uint32_t>(std::max<std::int64_t>(last_sequence_, 0)), 0, reason, std::strlen(reason));
    }
}

void UdpHardware::send(std::uint16_t kind, std::uint32_t sequence, std::uint32_t flags, const void* payload,
                       std::size_t bytes) {
    Header header;
    header.kind = kind;
    header.sequence = sequence;
    header.flags = flags;
    header.time = now() - began_;
    outgoing_.resize(sizeof header + bytes);
    std::memcpy(outgoing_.data(), &header, sizeof header);
    std::memcpy(outgoing_.data() + sizeof header, payload, bytes);
    (void)::send(socket_, outgoing_.data(), outgoing_.size(), 0);  // nobody listening shows as silence
}

// The next packet of this protocol within `timeout` seconds; false if there is none.
bool UdpHardware::receive(double timeout, Header& header, std::vector<char>& payload) {
    const double deadline = now() + timeout;
    while (true) {
        const double left = std::max(0.0, deadline - now());
        pollfd waiting{socket_, POLLIN, 0};
        timespec t;
        t.tv_sec = static_cast<time_t>(left);
        t.tv_nsec = static_cast<long>(1e9 * (left - std::floor(left)));
        if (::ppoll(&waiting, 1, &t, nullptr) <= 0) return false;  // time is over, or a signal came
        const ssize_t bytes = ::recv(socket_, incoming_.data(), incoming_.size(), 0);
        if (bytes < static_cast<ssize_t>(sizeof header)) continue;  // also where the other side's port is closed
        std::memcpy(&header, incoming_.data(), sizeof header);
        if (header.magic != kMagic || header.version != kVersion) continue;
        payload.assign(incoming_.begin() + sizeof header, incoming_.begin() + bytes);
        return true;
    }
}

void UdpHardware::check(const std::vector<char>& payload) const {
    const Layout ours;
    Layout theirs;
    if (payload.size() != sizeof theirs) throw LinkError(where_ + ": its greeting has another length");
    std::memcpy(&theirs, payload.data(), sizeof theirs);
    const auto same = [&](const char* name, int robot, int here) {
        if (robot != here) {
            throw LinkError(where_ + ": is made for " + name + "=" + std::to_string(robot) + ", this side for " + name +
                            "=" + std::to_string(here));
        }
    };
    same("nq", theirs.nq, ours.nq);
    same("nv", theirs.nv, ours.nv);
    same("contact_bodies", theirs.contact_bodies, ours.contact_bodies);
    same("actions", theirs.actions, ours.actions);
    same("commands", theirs.commands, ours.commands);
    if (theirs.fingerprint != ours.fingerprint) {
        throw LinkError(where_ + ": has other names of joints, actuators or contact bodies, or in another order");
    }
    if (std::fabs(theirs.control_dt - ours.control_dt) > 1e-6 * ours.control_dt) {
        throw LinkError(where_ + ": acts every " + std::to_string(theirs.control_dt) + " s, this side every " +
                        std::to_string(ours.control_dt) + " s");
    }
}

}  // namespace robot_loop
