/* Feeds a file of received bytes to the C agent in small pieces; for sanitizers.
 *   agent_fuzz bytes.bin package.bin
 * Work memory and ram are exact heap blocks, so that a step beyond them is seen. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "agent.h"

typedef struct feed { const uint8_t *data; size_t len, at, sent; uint64_t now; unsigned seed; } feed;

static size_t rx(void *ctx, uint8_t *buf, size_t cap)
{
    feed *f = ctx;
    size_t n = (f->seed = f->seed * 1103515245u + 12345u) >> 16 & 255;
    if (n > cap) n = cap;
    if (n > f->len - f->at) n = f->len - f->at;
    memcpy(buf, f->data + f->at, n);
    f->at += n;
    return n;
}

static int tx(void *ctx, const uint8_t *data, size_t len)
{
    feed *f = ctx;
    for (size_t i = 0; i < len; i++) f->sent += data[i] & 1u; /* reads every byte */
    return 0;
}

static uint64_t clock_(void *ctx) { return ++((feed *)ctx)->now; }

static uint8_t *load(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END)) exit(2);
    *len = (size_t)ftell(f);
    rewind(f);
    uint8_t *p = aligned_alloc(64, (*len + 63) & ~(size_t)63);
    if (!p || fread(p, 1, *len, f) != *len) exit(2);
    fclose(f);
    return p;
}

int main(int argc, char **argv)
{
    static ek_agent agent;
    static feed f;
    if (argc != 3) return 2;
    ek_agent_config c = EK_AGENT_CONFIG_INIT;
    f.data = load(argv[1], &f.len);
    c.max_body = 240;
    c.queue_frames = 3;
    c.rx = rx;
    c.tx = tx;
    c.clock = clock_;
    c.clock_kind = EK_CLOCK_INSTRUCTIONS;
    c.ctx = &f;
    c.name = "fuzz";
    c.work_len = EK_AGENT_WORK_BYTES(c.max_body, c.queue_frames);
    c.work = malloc(c.work_len);
    c.ram_len = 48 * 1024;
    c.ram = aligned_alloc(64, c.ram_len);
    c.resident = load(argv[2], &c.resident_len);
    if (ek_agent_init(&agent, &c) != EK_AGENT_OK) return 2;
    unsigned idle = 0;
    for (unsigned steps = 0; idle < 300 && steps < 5000000; steps++) {
        int state = ek_agent_step(&agent);
        if (state == EK_AGENT_DOWN) return 3; /* COBS never needs that */
        idle = state == EK_AGENT_IDLE && f.at == f.len ? idle + 1 : 0;
    }
    printf("%zu %zu\n", f.at, f.sent);
    return f.at == f.len ? 0 : 4;
}
