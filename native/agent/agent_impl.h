/* Inside of the agent, shared by agent.c (link, session, queue, upload) and agent_run.c (packages). */
#ifndef EK_AGENT_IMPL_H
#define EK_AGENT_IMPL_H
#include "agent.h"
#include "codec.h"
#include "sha256.h"

enum { LINK_NEW = 0, LINK_HELLO = 1, LINK_READY = 2 };

/* Steps of a benchmark, in order. */
enum { BENCH_NONE = 0, BENCH_DESCRIBE, BENCH_OPEN, BENCH_WARMUP, BENCH_MEASURE, BENCH_TRACE,
       BENCH_EMIT, BENCH_FIGURES, BENCH_END };

typedef struct agent_bench {
    uint8_t phase, metric_pending;
    uint16_t code;
    uint32_t entry, run, warmup, count, traced, done, traces_done;
    uint32_t described;             /* channels described so far */
    uint32_t emitted;               /* ops of the newest trace that are in the queue */
    uint32_t status;
    uint64_t open_ticks, first_ticks, deadline, next_metric;
    uint64_t held;                  /* when the queue became full; the time limit stands still */
} agent_bench;

typedef struct agent_trace {
    uint8_t *items;                 /* OpTime records as on the wire; in ram behind the session */
    uint32_t cap, len;              /* records */
    uint64_t begin;                 /* clock when the inference began */
    uint32_t stop_after;            /* op + 1; 0: run to the end */
    uint8_t stop;
} agent_trace;

typedef struct agent_impl {
    ek_agent_config cfg;
    uint64_t boot, session, hellos;
    uint8_t link, down, skip;       /* skip: COBS bytes up to the next zero belong to no frame */
    uint8_t hello_len;
    uint8_t hello[48];              /* body of the HELLO this link was made with */
    uint8_t digest[32];             /* SHA-256 of both hello bodies */
    uint8_t nonce[16];
    uint32_t body_max;              /* agreed with the host */
    uint8_t *rx, *tx, *slots;
    size_t rx_len, rx_cap, slot_bytes;
    uint32_t queue_first, queue_next; /* sequence numbers: unacknowledged are first..next-1 */
    uint8_t *block;                 /* samples being collected in the slot of queue_next, or NULL */
    uint32_t block_len, block_first;
    uint64_t block_begin;
    ek_msg_result last;             /* answer to the newest command, for its repetition */
    uint8_t *package;               /* uploaded */
    uint64_t package_len, offset;
    uint8_t package_sha[32], package_done;
    ek_sha256 sha;
    ek_session *s;
    const uint8_t *open_package;
    size_t open_len;
    uint32_t threads, cpu_mask;
    uint8_t traced_session;         /* opened with the trace hook */
    uint32_t copy_entry;
    uint8_t *copy;                  /* inputs of copy_entry, put back before every run; or NULL */
    size_t copy_len;
    void *mem[EK_MEM_KINDS];
    size_t mem_len[EK_MEM_KINDS], mem_need[EK_MEM_KINDS];
    agent_trace trace;
    agent_bench bench;
} agent_impl;

_Static_assert(sizeof(agent_impl) <= sizeof(ek_agent), "ek_agent is too small: enlarge opaque");

/* agent.c */
uint64_t ek_agent_now(const agent_impl *a);
uint8_t *ek_agent_body(agent_impl *a); /* where the body of the next control frame is made */
/* Sends a message outside the queue; its tail may lie in ek_agent_body behind the head. */
void ek_agent_send(agent_impl *a, uint8_t type, const ek_wire_layout *l, const void *m);
uint32_t ek_agent_room(const agent_impl *a); /* free slots of the queue */
/* Queues a message (a free slot must exist) and sends it if there is a link. */
void ek_agent_queue(agent_impl *a, uint8_t type, const ek_wire_layout *l, const void *m);
uint8_t *ek_agent_slot(agent_impl *a); /* body of the slot the next queued frame will take */

/* agent_run.c */
void ek_agent_command(agent_impl *a, const ek_msg_cmd *c);
int ek_agent_bench_step(agent_impl *a); /* 1: did something; 0: nothing to do or queue full */
void ek_agent_close(agent_impl *a);
int ek_agent_benching(const agent_impl *a);

#endif
