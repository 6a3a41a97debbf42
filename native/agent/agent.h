/* The EdgeKit agent in C: speaks native/WIRE.md over any byte link, runs packages, answers a host.
 * Transport-free, libc-free (memcpy, memset, memmove, memcmp only), no malloc, no globals.
 *
 * A port (UART on a microcontroller, TCP on Linux) gives hooks and memory, then calls one function:
 *
 *   static ek_agent agent;
 *   static uint64_t work[(EK_AGENT_WORK_BYTES(240, 4) + 7) / 8];
 *   static uint64_t ram[64 * 1024 / 8];                        // session memories, uploaded package
 *   ek_agent_config c = EK_AGENT_CONFIG_INIT;
 *   c.framing = EK_FRAMING_COBS;  c.max_body = 240;  c.queue_frames = 4;
 *   c.rx = uart_rx;  c.tx = uart_tx;  c.ctx = &uart;
 *   c.clock = ticks;  c.clock_hz = 25000000;  c.clock_kind = EK_CLOCK_INSTRUCTIONS;
 *   c.work = work;  c.work_len = sizeof work;  c.ram = ram;  c.ram_len = sizeof ram;
 *   c.resident = package_in_flash;  c.resident_len = package_len;   // or leave NULL
 *   if (ek_agent_init(&agent, &c) != EK_AGENT_OK) hang();
 *   for (;;) if (ek_agent_step(&agent) == EK_AGENT_IDLE) wait_for_interrupt();
 *
 * Compile native/agent/{agent,agent_run,codec,sha256}.c and native/gen/wire.c with the runtime's
 * flags and -Inative/agent; main_posix.c is the port for Linux and is not for bare metal.
 *
 * Rules for the port.  rx never blocks.  tx may block and takes everything or reports a dead link.
 * The agent calls its hooks only from inside ek_agent_step; none of its functions may be called from
 * an interrupt handler.  A UART without hardware flow control needs a receive ring (filled by an
 * interrupt) of at least rx_window + EK_AGENT_FRAME_BYTES(max_body) bytes, because no byte is
 * taken while a model runs.  Lost or damaged bytes cost a repetition, never a wrong value. */
#ifndef EK_AGENT_H
#define EK_AGENT_H
#include "edgekit.h"

enum { EK_FRAMING_COBS = 0,   /* COBS and a 0x00 after each frame: serial lines */
       EK_FRAMING_LENGTH = 1  /* u16 length before each frame: TCP and other reliable streams */ };

/* What one unit of the clock is.  The host prints microseconds for EK_CLOCK_TIME only; a counter
 * of an emulator must never be declared as time. */
enum { EK_CLOCK_NONE = 0,         /* no clock: latencies are `unmeasurable` */
       EK_CLOCK_TIME = 1,         /* real time: clock_hz ticks per second */
       EK_CLOCK_INSTRUCTIONS = 2, /* executed instructions (emulator) */
       EK_CLOCK_TICKS = 3         /* counts something, unit not known */ };

enum { EK_AGENT_OK = 0,
       EK_AGENT_IDLE = 1,  /* step: nothing to do before the next received byte */
       EK_AGENT_BUSY = 2,  /* step: call again soon (a benchmark is running) */
       EK_AGENT_DOWN = 3,  /* step: tx reported a dead link; call ek_agent_link_lost, reconnect */
       EK_AGENT_BAD_CONFIG = 4 };

/* Bytes of one frame on the line at most: header, body, CRC, COBS overhead, delimiter. */
#define EK_AGENT_FRAME_BYTES(max_body) ((size_t)(max_body) + 20u + ((size_t)(max_body) + 20u) / 254u + 2u)
/* Bytes of `work`: one received frame, one frame being made, and the queue of unacknowledged ones. */
#define EK_AGENT_WORK_BYTES(max_body, queue_frames) \
    (EK_AGENT_FRAME_BYTES(max_body) + ((size_t)(max_body) + 24u) * (2u + (size_t)(queue_frames)) + 16u)

/* One reading of a sensor of the port, streamed with the benchmark.  `value` is in `unit` (the
 * EK_UNIT_* of native/gen/wire.h: milli-degrees, kHz, bytes, ...). */
typedef struct ek_agent_metric {
    uint16_t channel; /* number given by the port, from 16; described once by `describe` */
    uint8_t quality;  /* EK_QUALITY_* */
    uint8_t unit;     /* EK_UNIT_* */
    int64_t value;
} ek_agent_metric;

/* What a channel is; strings are NUL-terminated and cut at 31 (name, site) and 95 (reason) bytes.
 * quality EK_QUALITY_UNMEASURABLE needs a reason and has no readings. */
typedef struct ek_agent_channel {
    uint16_t channel;
    uint8_t kind;    /* EK_KIND_* */
    uint8_t quality, unit;
    const char *name, *site, *reason;
} ek_agent_channel;

typedef struct ek_agent_config {
    uint32_t size;            /* sizeof(ek_agent_config) */
    uint8_t framing;          /* EK_FRAMING_* */
    uint8_t clock_kind;       /* EK_CLOCK_* */
    uint16_t max_body;        /* largest frame body: 240..1008 on UARTs, up to 65000 elsewhere */
    uint16_t queue_frames;    /* unacknowledged data frames kept for repetition, 2..32 */
    uint8_t agent_kind;       /* EK_AGENT_KIND_*: 2 microcontroller */
    uint8_t emulated;         /* 1: no clock here is real time; EK_CLOCK_TIME is then refused */
    uint32_t rx_window;       /* package bytes the host may send unacknowledged; 0: one body */
    uint64_t clock_hz;        /* ticks per second of the clock; 0 if that means nothing */
    uint64_t (*clock)(void *ctx);  /* monotonic 64-bit count; extend a wrapping counter in the port */
    size_t (*rx)(void *ctx, uint8_t *buf, size_t cap);          /* bytes at hand now; 0: none */
    int (*tx)(void *ctx, const uint8_t *data, size_t len);      /* all of it; non-zero: link is dead */
    void (*describe)(void *ctx, unsigned i, ek_agent_channel *c);  /* channel i of `channels` */
    unsigned (*metrics)(void *ctx, ek_agent_metric *out, unsigned cap); /* readings now; may be NULL */
    uint64_t (*stack_used)(void *ctx); /* high-water mark of the stack in bytes; may be NULL */
    void *ctx;                /* given to every hook */
    unsigned channels;        /* how many `describe` knows; 0 without sensors */
    const char *name;         /* device name, at most 31 bytes: "mps2-an386" */
    const char *firmware;     /* version of the port, at most 31 bytes */
    const uint8_t *uid;       /* 16 bytes, the same on every boot; NULL: derived from the name */
    const uint8_t *token;     /* shared secret of token_len bytes; NULL: whoever holds the line may use it */
    size_t token_len;
    const uint8_t *entropy;   /* bytes that differ on every boot; required with a token */
    size_t entropy_len;
    void *work;               /* EK_AGENT_WORK_BYTES(max_body, queue_frames), aligned to 8 */
    size_t work_len;
    void *ram;                /* for an uploaded package and every session memory not given in mem; aligned 16 */
    size_t ram_len;
    void *mem[EK_MEM_KINDS];  /* separate banks, aligned 16; NULL: taken from ram */
    size_t mem_len[EK_MEM_KINDS];
    const void *resident;     /* a package linked into flash, aligned to EK_ALIGN_PACKAGE; NULL: none */
    size_t resident_len;
    const ek_op_def *const *ops; /* as in ek_config */
    ek_parallel_fn parallel;  /* as in ek_config, with `parallel_ctx` as its context */
    void *parallel_ctx;
    uint32_t threads;
    /* Optional larger home for uploaded packages (a file, external flash).  Without them packages
     * live in ram.  store_begin gives memory for `bytes` aligned to EK_ALIGN_PACKAGE, or NULL. */
    void *(*store_begin)(void *ctx, uint64_t bytes);
    /* Memory for a session, aligned 16 (64 on hosted systems), or NULL; called again for every open.
     * Without it sessions live in mem and ram. */
    void *(*memory)(void *ctx, unsigned kind, size_t bytes);
} ek_agent_config;
#define EK_AGENT_CONFIG_INIT { .size = sizeof(ek_agent_config), .max_body = 240, .queue_frames = 4, .agent_kind = 2 }

/* Storage of one agent; what is inside is private (native/agent/agent_impl.h). */
typedef struct ek_agent { uint64_t opaque[192]; } ek_agent;

/* Checks the configuration (EK_AGENT_BAD_CONFIG) and prepares; `c` is copied, what it points to is not. */
int ek_agent_init(ek_agent *a, const ek_agent_config *c);
/* Takes the bytes at hand, answers every complete frame, and does at most one inference. */
int ek_agent_step(ek_agent *a);
/* Link lost or a new one made: forgets half a frame and the peer's authentication; keeps the
 * package, the benchmark and the queue, which go on after the next HELLO. */
void ek_agent_link_lost(ek_agent *a);
/* 1 when a host is connected and, where there is a token, has proven that it knows it. */
int ek_agent_ready(const ek_agent *a);

#endif
