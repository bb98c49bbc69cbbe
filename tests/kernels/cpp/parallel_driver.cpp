// Counts pieces: every one is done once, whoever comes, also from several threads and with nested calls. Built by `make sanitize`.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "../../../kernels/cpp/parallel.h"

namespace {

void check(bool holds, const char* what) {
    if (holds) return;
    std::printf("parallel: %s\n", what);
    std::exit(1);
}

void rounds(int count, int threads, unsigned seed, bool alone) {
    for (int round = 0; round < count; round++) {
        seed = seed * 1664525u + 1013904223u;
        const int pieces = seed >> 28;
        std::vector<int> done(pieces, 0);
        std::atomic<int> next{0}, inside{0};
        auto body = [&] {
            inside.fetch_add(1);
            for (int i; (i = next.fetch_add(1)) < pieces;) {
                done[i]++;
                if (i == 3) {
                    std::atomic<int> inner{0};
                    auto nested = [&] { inner.fetch_add(1); };
                    ramify::parallel(threads, nested);
                    check(inner.load() == 1 || !alone, "a nested call took threads that its caller has");
                }
                for (volatile int wait = 0; wait < static_cast<int>(seed >> 20 & 1023); wait++) {}
            }
            inside.fetch_sub(1);
        };
        ramify::parallel(threads, body);
        check(inside.load() == 0, "a call returned while a body ran");
        for (int one : done) check(one == 1, "a piece was not done once");
        if (round % 1000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // long enough to fall asleep
    }
}

}  // namespace

int main() {
    for (int threads : {1, 2, 3, 8}) rounds(20000, threads, threads, true);
    std::vector<std::thread> callers;
    for (unsigned i = 0; i < 3; i++) callers.emplace_back([i] { rounds(20000, 3, 100 + i, false); });
    for (std::thread& caller : callers) caller.join();
    std::printf("parallel: good\n");
}
