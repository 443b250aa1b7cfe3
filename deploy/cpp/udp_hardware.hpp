// A robot at the other end of a UDP link: the simulated robot of this project, or one whose own program speaks the
// protocol (docs/deploy.md; dualfid_robot/onboard/link.py is its other half). Little-endian machines only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "hardware.hpp"

namespace robot_loop {

// No robot, or another one than the policy's.
struct LinkError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class UdpHardware : public Hardware {
public:
    // Greet the robot until it answers, for `wait` seconds. `lockstep` asks a simulated robot to wait for a control at
    // each step. `slow`: seconds that each write takes longer, as on an overloaded computer, for tests.
    // Throws LinkError.
    UdpHardware(const std::string& host, int port, bool lockstep, double wait, double slow = 0.0);
    ~UdpHardware() override;
    UdpHardware(const UdpHardware&) = delete;
    UdpHardware& operator=(const UdpHardware&) = delete;

    Read read(State& state, double timeout) override;
    void write(const Output& output) override;
    void stop(const char* reason) override;

private:
    struct Header;
    struct Layout;

    void send(std::uint16_t kind, std::uint32_t sequence, std::uint32_t flags, const void* payload, std::size_t bytes);
    bool receive(double timeout, Header& header, std::vector<char>& payload);
    void check(const std::vector<char>& payload) const;

    int socket_;
    std::string where_;
    double slow_, began_;
    std::int64_t last_sequence_ = -1;
    std::vector<char> incoming_, outgoing_, payload_, answer_;
};

}  // namespace robot_loop
