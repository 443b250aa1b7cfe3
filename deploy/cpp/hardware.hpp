// What a robot loop needs of a robot: the functions to fill in. docs/deploy.md has a worked example.
#pragma once

#include "policy.hpp"

namespace robot_loop {

using dualfid_policy::State;

// How a read ended: with a new state, without one, with the end of the run, or because the robot has stopped by itself.
enum class Read { ok, timeout, closed, stopped };

// What leaves the loop each control period. A robot needs only `control`; a simulator judges an episode by the rest.
struct Output {
    const float* control;   // kActions, in actuator units, within the limits
    const float* action;    // kActions, the policy's clipped action
    const float* commands;  // kCommands, as the operator gave them
};

class Hardware {
public:
    virtual ~Hardware() = default;

    // Put the newest state that has not been read yet into `state`; wait for one up to `timeout` seconds. A timeout
    // leaves `state` as it is.
    virtual Read read(State& state, double timeout) = 0;

    // Hand the controls to the actuators' drives, which keep them until the next call.
    virtual void write(const Output& output) = 0;

    // Stop the robot: motors without force, position servos at the last measured position. Called once, at the end of
    // every run, whatever the reason.
    virtual void stop(const char* reason) = 0;

    // Overwrite what an operator's input device says now, kCommands values; they come in as they are.
    virtual void commands(float* /*values*/) {}
};

}  // namespace robot_loop
