// Times of a running loop without allocation: the newest values for percentiles, and the greatest of all.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

namespace robot_loop {

class Samples {
public:
    void add(double seconds) {
        values_[count_++ % values_.size()] = seconds;
        max_ = std::max(max_, seconds);
    }

    // {"p50": …, "p99": …, "max": …} in microseconds, or null.
    std::string json() const {
        if (count_ == 0) return "null";
        std::vector<double> sorted(values_.begin(), values_.begin() + static_cast<long>(std::min(count_, values_.size())));
        std::sort(sorted.begin(), sorted.end());
        const auto rank = [&](double p) {
            return 1e6 * sorted[static_cast<std::size_t>(std::ceil(p * static_cast<double>(sorted.size()))) - 1];
        };
        char text[96];
        std::snprintf(text, sizeof text, "{\"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f}", rank(0.50), rank(0.99), 1e6 * max_);
        return text;
    }

private:
    std::vector<double> values_ = std::vector<double>(65536);
    std::size_t count_ = 0;
    double max_ = 0.0;
};

}  // namespace robot_loop
