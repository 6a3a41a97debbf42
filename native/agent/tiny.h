/* The serial commands of MLCommons Tiny's runner, spoken until the first 0x00 byte, which belongs to our frames.
 *
 *   name%  profile%  timestamp%  db load N%  db HEX...%  infer N W%  results%  help%
 *
 * Inputs arrive as the reference firmware takes them: bytes of the input; of an image, unsigned (128 is taken off);
 * float32 where four times as many bytes come, quantized here.  Laps are microseconds only where the clock is time. */
#ifndef EK_TINY_H
#define EK_TINY_H
#include "edgekit.h"

typedef struct ek_tiny {
    /* given by the port; hooks as in ek_agent_config */
    size_t (*rx)(void *ctx, uint8_t *buf, size_t cap);
    int (*tx)(void *ctx, const uint8_t *data, size_t len);
    uint64_t (*clock)(void *ctx);
    void *ctx;
    uint64_t clock_hz;   /* ticks of a second; 0: the clock counts instructions */
    const char *name;
    const void *package; /* NULL: only name% and profile% are answered with sense */
    size_t package_len;
    const ek_op_def *const *ops;
    uint8_t *ram;        /* aligned 16: the session, and what `db` brings */
    size_t ram_len;
    /* private; zero before the first step */
    ek_session *session;
    uint8_t *bytes;
    uint32_t want, have, at, given;
    uint8_t line[128];
} ek_tiny;

/* Takes what has come.  1: a 0x00 came, the agent goes on and first takes what ek_tiny_rest gives. */
int ek_tiny_step(ek_tiny *t);
size_t ek_tiny_rest(ek_tiny *t, uint8_t *buf, size_t cap);
#endif
