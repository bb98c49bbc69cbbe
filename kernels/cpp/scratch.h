// Memory that a thread keeps, and threads that are woken only where it pays.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "parallel.h"

namespace ramify {

// Grows and is kept, aligned to cache lines. Contents do not survive growth.
class Scratch {
  public:
    Scratch() = default;
    Scratch(const Scratch&) = delete;
    ~Scratch() { std::free(data_); }
    char* bytes(int64_t count) {
        if (count > held_) {
            std::free(data_);
            held_ = (count + count / 4 + 63) / 64 * 64;
            data_ = static_cast<char*>(std::aligned_alloc(64, held_));
            if (!data_) {
                held_ = 0;
                throw std::bad_alloc();
            }
        }
        return data_;
    }

  private:
    char* data_ = nullptr;
    int64_t held_ = 0;
};

constexpr double WORTH_WAKING_NS = 10000;  // a call shorter than this stays on its thread

inline int threads_for(double nanoseconds, int64_t items, int threads) {
    if (threads == 1 || items < 2 || nanoseconds < WORTH_WAKING_NS) return 1;
    return items < threads ? static_cast<int>(items) : threads;
}

// body(first, last) for all of [0, count), `chunk` at a time from a shared counter: a thread that is held up takes fewer.
template <class Body>
void in_chunks(int64_t count, int64_t chunk, int threads, const Body& body) {
    if (threads == 1) {
        if (count > 0) body(int64_t(0), count);
        return;
    }
    std::atomic<int64_t> next{0};
    auto take = [&] {
        for (int64_t first; (first = next.fetch_add(chunk, std::memory_order_relaxed)) < count;) {
            body(first, first + chunk < count ? first + chunk : count);
        }
    };
    parallel(threads, take);
}

}  // namespace ramify
