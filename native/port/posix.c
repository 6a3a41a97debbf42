/* Thread pool, clock and trace for hosted systems.  The one place of the library that allocates.
 *
 * A job waits for the workers that joined it, not for those still asleep or without a processor: whoever comes late finds
 * the gate closed.  Workers spin for a bounded time after a job, so that the next op of the same run finds them awake (a futex wake-up
 * costs microseconds, and a network has tens of ops), then sleep.
 *
 * Each thread begins with its own stretch of the tiles, the same for every job of so many tiles, then helps the others from the end
 * of theirs: what a thread wrote in one op it mostly reads in the next, from its own cache. */
#if !defined(_WIN32)
#define _POSIX_C_SOURCE 200809L
#endif
#include "host.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#if defined(_WIN32)
typedef int ek_thread; /* no threads on Windows yet: ek_host_create gives one */
#else
#include <pthread.h>
#include <sched.h>
typedef pthread_t ek_thread;
#endif

#define SPIN 4000 /* about 10 to 50 microseconds */
#define OPEN 0x10000u

/* The tiles of a thread, alone on their cache line: who takes one of `left` gets the first, others than the owner the last. */
typedef struct stretch { _Alignas(64) atomic_uint left, end; unsigned first; } stretch;

struct ek_host {
    unsigned threads, started;
    unsigned trace_room, trace_count;
    ek_host_op *trace;
#if !defined(_WIN32)
    ek_thread *thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
#endif
    stretch *stretch; /* of each thread */
    void *stretches;  /* where they were allocated */
    atomic_uint job, stop, sleepers;
    atomic_uint gate; /* OPEN while a job may be joined, plus the workers inside */
    ek_tile_fn fn;
    void *arg;
};

static uint64_t host_clock(void *ctx)
{
    struct timespec t;
    (void)ctx;
#if defined(_WIN32)
    timespec_get(&t, TIME_UTC);
#else
    clock_gettime(CLOCK_MONOTONIC, &t);
#endif
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void host_trace(void *ctx, uint32_t op, uint64_t begin, uint64_t end)
{
    ek_host *h = (ek_host *)ctx;
    if (h->trace_count < h->trace_room)
        h->trace[h->trace_count++] = (ek_host_op){ op, 0, begin, end };
}

unsigned ek_host_trace(ek_host *h, const ek_host_op **ops)
{
    *ops = h->trace;
    return h->trace_count;
}

void ek_host_clear(ek_host *h) { h->trace_count = 0; }

#if !defined(_WIN32)
static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void work(ek_host *h, unsigned me)
{
    for (unsigned k = 0; k < h->threads; k++) {
        stretch *s = &h->stretch[(me + k) % h->threads];
        unsigned left = atomic_load_explicit(&s->left, memory_order_relaxed);
        while (left)
            if (atomic_compare_exchange_weak_explicit(&s->left, &left, left - 1, memory_order_relaxed, memory_order_relaxed)) {
                unsigned tile = k ? atomic_fetch_sub_explicit(&s->end, 1, memory_order_relaxed) - 1 : s->first++;
                h->fn(h->arg, tile, me);
                left = atomic_load_explicit(&s->left, memory_order_relaxed);
            }
    }
}

/* 1: the caller is inside the open job, whose fields it now sees */
static int join(ek_host *h)
{
    unsigned g = atomic_load_explicit(&h->gate, memory_order_relaxed);
    while (g & OPEN)
        if (atomic_compare_exchange_weak_explicit(&h->gate, &g, g + 1, memory_order_acquire, memory_order_relaxed))
            return 1;
    return 0;
}

typedef struct start { ek_host *h; unsigned me; } start;

static void *worker(void *p)
{
    start s = *(start *)p;
    free(p);
    ek_host *h = s.h;
    unsigned seen = 0;
    for (;;) {
        unsigned spins = 0;
        while (atomic_load_explicit(&h->job, memory_order_acquire) == seen && !atomic_load(&h->stop)) {
            if (spins++ < SPIN) {
                relax();
                continue;
            }
            pthread_mutex_lock(&h->lock);
            atomic_fetch_add(&h->sleepers, 1);
            while (atomic_load(&h->job) == seen && !atomic_load(&h->stop))
                pthread_cond_wait(&h->wake, &h->lock);
            atomic_fetch_sub(&h->sleepers, 1);
            pthread_mutex_unlock(&h->lock);
        }
        if (atomic_load(&h->stop))
            return 0;
        seen = atomic_load_explicit(&h->job, memory_order_acquire);
        if (join(h)) {
            work(h, s.me);
            atomic_fetch_sub_explicit(&h->gate, 1, memory_order_release);
        }
    }
}

static void host_parallel(void *ctx, ek_tile_fn fn, void *arg, unsigned tiles)
{
    ek_host *h = (ek_host *)ctx;
    h->fn = fn;
    h->arg = arg;
    for (unsigned i = 0, first = 0, end; i < h->threads; i++, first = end) {
        stretch *s = &h->stretch[i];
        end = (unsigned)(((uint64_t)tiles * (i + 1) + h->threads - 1) / h->threads);
        s->first = first;
        atomic_store_explicit(&s->end, end, memory_order_relaxed);
        atomic_store_explicit(&s->left, end - first, memory_order_relaxed);
    }
    atomic_store_explicit(&h->gate, OPEN, memory_order_release);
    atomic_fetch_add(&h->job, 1);
    if (atomic_load(&h->sleepers)) {
        pthread_mutex_lock(&h->lock);
        pthread_cond_broadcast(&h->wake);
        pthread_mutex_unlock(&h->lock);
    }
    work(h, 0);
    atomic_fetch_and_explicit(&h->gate, ~OPEN, memory_order_relaxed);
    for (unsigned spins = 0; atomic_load_explicit(&h->gate, memory_order_acquire); spins++) {
        if (spins < SPIN)
            relax();
        else
            sched_yield(); /* the worker may be waiting for this processor */
    }
}

static int start_workers(ek_host *h)
{
    if (h->threads < 2)
        return 1;
    h->thread = (ek_thread *)calloc(h->threads, sizeof *h->thread);
    h->stretches = calloc(h->threads + 1, sizeof *h->stretch);
    if (!h->thread || !h->stretches)
        return 0;
    h->stretch = (stretch *)(((uintptr_t)h->stretches + 63) & ~(uintptr_t)63);
    for (unsigned i = 1; i < h->threads; i++) {
        start *s = (start *)malloc(sizeof *s);
        if (!s)
            return 0;
        *s = (start){ h, i };
        if (pthread_create(&h->thread[i], 0, worker, s)) {
            free(s);
            return 0;
        }
        h->started++;
    }
    return 1;
}
#endif

ek_host *ek_host_create(unsigned threads, unsigned trace_ops)
{
    ek_host *h = (ek_host *)calloc(1, sizeof *h);
    if (!h)
        return 0;
#if defined(_WIN32)
    threads = 1;
#endif
    h->threads = threads ? threads : 1;
    h->trace_room = trace_ops;
    h->trace = trace_ops ? (ek_host_op *)calloc(trace_ops, sizeof *h->trace) : 0;
#if !defined(_WIN32)
    pthread_mutex_init(&h->lock, 0);
    pthread_cond_init(&h->wake, 0);
    if ((trace_ops && !h->trace) || !start_workers(h)) {
        ek_host_destroy(h);
        return 0;
    }
#endif
    return h;
}

void ek_host_destroy(ek_host *h)
{
    if (!h)
        return;
#if !defined(_WIN32)
    atomic_store(&h->stop, 1);
    pthread_mutex_lock(&h->lock);
    pthread_cond_broadcast(&h->wake);
    pthread_mutex_unlock(&h->lock);
    for (unsigned i = 1; i <= h->started; i++)
        pthread_join(h->thread[i], 0);
    free(h->thread);
    free(h->stretches);
    pthread_cond_destroy(&h->wake);
    pthread_mutex_destroy(&h->lock);
#endif
    free(h->trace);
    free(h);
}

void ek_host_attach(ek_host *h, ek_config *cfg)
{
    cfg->threads = h->threads;
    cfg->ctx = h;
    cfg->clock = host_clock;
    cfg->trace = h->trace ? host_trace : 0;
#if !defined(_WIN32)
    cfg->parallel = h->started ? host_parallel : 0;
#endif
}

ek_status ek_host_time(ek_session *s, unsigned entry, unsigned n, uint64_t *ns)
{
    for (unsigned i = 0; i < n; i++) {
        uint64_t t = host_clock(0);
        ek_status e = ek_run(s, entry);
        ns[i] = host_clock(0) - t;
        if (e)
            return e;
    }
    return EK_OK;
}
