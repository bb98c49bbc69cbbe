#include "parallel.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <condition_variable>
#include <system_error>
#include <thread>

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace ramify {
namespace {

constexpr int MOST_THREADS = 256;
// How long a thread that has nothing to do looks for work before it sleeps. Within a step the next call comes after some
// microseconds, and waking a thread costs more than that.
constexpr auto PATIENCE = std::chrono::microseconds(60);

inline void pause() {
#ifdef __x86_64__
    _mm_pause();
#else
    std::this_thread::yield();
#endif
}

// One call at a time. `call_` is its number (upper 32 bits), whether it can be joined (bit 31), how many more may join (bits 16 to 30)
// and how many have (bits 0 to 15): all in one word, so that nobody joins what has been closed.
class Pool {
  public:
    void run(int threads, void (*body)(void*), void* context) {
        if (threads < 2 || busy_.test_and_set(std::memory_order_acquire)) return body(context);
        const int others = grow(threads - 1);
        body_ = body, context_ = context;
        left_.store(0, std::memory_order_relaxed);
        call_.store(number_ + OPEN + uint64_t(others) * ONE_MAY, std::memory_order_seq_cst);
        number_ += ONE_CALL;
        if (sleeping_.load(std::memory_order_seq_cst) > 0) {
            { std::lock_guard<std::mutex> hold(mutex_); }
            wake_.notify_all();
        }
        body(context);
        const uint64_t joined = call_.fetch_and(~OPEN, std::memory_order_acq_rel) & HAVE;
        for (int spins = 0; left_.load(std::memory_order_acquire) != joined; spins++) {
            if (spins < 2000) {
                pause();
            } else {
                std::this_thread::yield();  // it has been preempted within a piece: its core may be this one
            }
        }
        busy_.clear(std::memory_order_release);
    }

  private:
    static constexpr uint64_t ONE_CALL = uint64_t(1) << 32, OPEN = uint64_t(1) << 31, ONE_MAY = uint64_t(1) << 16, HAVE = 0xffff;

    int grow(int others) {
        if (others > MOST_THREADS) others = MOST_THREADS;
        try {
            while (threads_ < others) {
                std::thread([this] { serve(); }).detach();
                threads_++;
            }
        } catch (const std::system_error&) {  // no more threads: those that are there do
            return threads_ < others ? threads_ : others;
        }
        return others;
    }

    void serve() {
        for (;;) {
            wait();
            uint64_t seen = call_.load(std::memory_order_acquire);
            while (can_join(seen)) {
                if (call_.compare_exchange_weak(seen, seen - ONE_MAY + 1, std::memory_order_acq_rel)) {
                    body_(context_);
                    left_.fetch_add(1, std::memory_order_release);
                    // The call's work is done, but it may stay open for a moment: not to be joined a second time.
                    done_ = seen >> 32;
                    break;
                }
            }
        }
    }

    static bool is_open(uint64_t call) { return call & OPEN && (call & (OPEN - ONE_MAY)); }
    static bool can_join(uint64_t call) { return is_open(call) && call >> 32 != done_; }

    void wait() {
        const auto end = std::chrono::steady_clock::now() + PATIENCE;
        for (int spins = 1;; spins++) {
            if (can_join(call_.load(std::memory_order_acquire))) return;
            pause();
            if (spins % 64 == 0 && std::chrono::steady_clock::now() > end) break;
        }
        std::unique_lock<std::mutex> hold(mutex_);
        sleeping_.fetch_add(1, std::memory_order_seq_cst);
        while (!can_join(call_.load(std::memory_order_seq_cst))) wake_.wait(hold);
        sleeping_.fetch_sub(1, std::memory_order_relaxed);
    }

    static thread_local uint64_t done_;

    std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
    uint64_t number_ = ONE_CALL;
    int threads_ = 0;
    void (*body_)(void*) = nullptr;
    void* context_ = nullptr;
    alignas(64) std::atomic<uint64_t> call_{0};
    alignas(64) std::atomic<uint64_t> left_{0};
    alignas(64) std::atomic<int> sleeping_{0};
    std::mutex mutex_;
    std::condition_variable wake_;
};

thread_local uint64_t Pool::done_ = 0;

Pool& pool() {
    static Pool* made = new Pool;  // never destroyed: its threads may outlive static objects
    return *made;
}

}  // namespace

void parallel(int threads, void (*body)(void*), void* context) { pool().run(threads, body, context); }

}  // namespace ramify
