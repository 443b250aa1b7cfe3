// The limits within which the loop keeps a robot: docs/deploy.md. dualfid_robot/onboard/limits.py says the same.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string_view>

#include "policy.hpp"

namespace robot_loop {

namespace policy = dualfid_policy;

struct Limits {
    using Bounds = std::array<float, policy::kActions>;
    Bounds control_low, control_high;    // a control is put within them, always
    Bounds position_low, position_high;  // rad or m; beyond them the robot is stopped
    Bounds velocity;                     // rad/s or m/s; above it the robot is stopped

    // position_margin: how far beyond the joint's range, or beyond what the exporter's evaluation visited where that is
    // more, as a share of the range. velocity_factor: greatest speed as a multiple of the greatest that the evaluation
    // visited, for joints without a velocity limit.
    Limits(double position_margin, double velocity_factor) {
        for (int i = 0; i < policy::kActions; ++i) {
            const double low = policy::kJointLow[i], high = policy::kJointHigh[i];
            const double margin = std::isfinite(high - low) ? position_margin * (high - low) : 0.0;
            position_low[i] = static_cast<float>(std::min(low, double{policy::kVisitedLow[i]}) - margin);
            position_high[i] = static_cast<float>(std::max(high, double{policy::kVisitedHigh[i]}) + margin);
            velocity[i] = std::isfinite(policy::kVelocityLimit[i])
                              ? policy::kVelocityLimit[i]
                              : static_cast<float>(velocity_factor * policy::kVisitedVelocity[i]);
            set_control_range(i, low, high);
        }
    }

private:
    // The actuator's own range; a motor's also within its effort limit; a position servo's also within the joint's
    // range, as far as the action mapping does not reach beyond it.
    void set_control_range(int i, double joint_low, double joint_high) {
        double low = policy::kControlLow[i], high = policy::kControlHigh[i];
        const std::string_view kind = policy::kActuatorKinds[i];
        const double gear = std::fabs(policy::kGear[i]);
        if (kind == "motor" && std::isfinite(policy::kEffortLimit[i]) && gear != 0.0) {
            low = std::max(low, -policy::kEffortLimit[i] / gear);
            high = std::min(high, policy::kEffortLimit[i] / gear);
        } else if (kind == "position") {
            const double reach = std::fabs(policy::kActionScale[i]) * double{policy::kActionClip};
            const double centre = policy::kActionOffset[i];
            low = std::max(low, policy::kActionCumulative ? joint_low : std::min(joint_low, centre - reach));
            high = std::min(high, policy::kActionCumulative ? joint_high : std::max(joint_high, centre + reach));
        }
        control_low[i] = static_cast<float>(low);
        control_high[i] = static_cast<float>(high);
    }
};

}  // namespace robot_loop
