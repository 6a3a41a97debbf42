/* Hooks for hosted systems: a thread pool, a clock and a trace buffer behind one context. */
#ifndef EK_HOST_H
#define EK_HOST_H
#include "edgekit.h"

typedef struct ek_host ek_host;
typedef struct ek_host_op { uint32_t op, reserved; uint64_t begin, end; } ek_host_op; /* nanoseconds */

/* `threads` counts the caller; 1 starts none.  `trace_ops`: room for so many op records per run, 0: no trace.
 * NULL when memory or threads cannot be had. */
ek_host *ek_host_create(unsigned threads, unsigned trace_ops);
void ek_host_destroy(ek_host *h);
/* Sets threads, ctx and hooks of a configuration. */
void ek_host_attach(ek_host *h, ek_config *cfg);
/* Records since the last ek_host_clear: count, and the first of them. */
unsigned ek_host_trace(ek_host *h, const ek_host_op **ops);
void ek_host_clear(ek_host *h);
/* Runs an entry n times and stores each latency in nanoseconds: no foreign call in the timed region. */
ek_status ek_host_time(ek_session *s, unsigned entry, unsigned n, uint64_t *ns);
#endif
