// Threads that share a call's work, and of which none is waited for that has not begun.
//
// A barrier waits for every thread, also for one whose core another program has taken: at each of the hundred regions of a step, for
// what is left of the other's time slice. Here work lies in small pieces behind a shared counter; a thread that does not
// come gets none, and only pieces that somebody has begun are waited for.
#pragma once

namespace ramify {

// Calls body(context) on this thread, and on up to threads - 1 others if they come in time. The body takes pieces until there are none
// left, so that it may run once or several times, at the same time. Returns when every call has returned. While another such call
// of the process is under way (a body's own one too), the body runs here alone.
void parallel(int threads, void (*body)(void*), void* context);

template <class Body>
void parallel(int threads, const Body& body) {
    parallel(threads, [](void* context) { (*static_cast<const Body*>(context))(); }, const_cast<Body*>(&body));
}

}  // namespace ramify
