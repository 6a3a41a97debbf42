/* Feeds a file of received bytes to the C agent in small pieces; for sanitizers.
 *   agent_fuzz package.bin bytes.bin...     a fresh device for each file
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

static void describe(void *ctx, unsigned i, ek_agent_channel *c)
{
    (void)ctx;
    c->channel = (uint16_t)(16 + i);
    c->name = c->site = c->reason = "a text that is longer than thirty-one bytes and is cut somewhere, at the latest "
                                    "at ninety-five bytes";
}

static unsigned metrics(void *ctx, ek_agent_metric *out, unsigned cap)
{
    (void)ctx;
    for (unsigned i = 0; i < cap; i++) out[i].channel = 16, out[i].quality = out[i].unit = 1, out[i].value = -1;
    return cap;
}

static uint64_t stack_used(void *ctx) { return ((feed *)ctx)->at; }

/* One device from its start until it has taken every byte; 0 if it did. */
static int serve(const char *path, const uint8_t *package, size_t package_len, int timed)
{
    static ek_agent agent;
    feed f = {0};
    ek_agent_config c = EK_AGENT_CONFIG_INIT;
    f.data = load(path, &f.len);
    c.max_body = 240;
    c.queue_frames = 3;
    c.rx = rx;
    c.tx = tx;
    c.clock = clock_;
    c.clock_kind = timed ? EK_CLOCK_TIME : EK_CLOCK_INSTRUCTIONS;
    c.clock_hz = timed ? 1000 : 0;
    c.channels = 2;
    c.describe = describe;
    c.metrics = metrics;
    c.stack_used = stack_used;
    c.ctx = &f;
    c.name = "fuzz";
    c.work_len = EK_AGENT_WORK_BYTES(c.max_body, c.queue_frames);
    c.work = malloc(c.work_len);
    c.ram_len = 48 * 1024;
    c.ram = aligned_alloc(64, c.ram_len);
    c.resident = package;
    c.resident_len = package_len;
    if (!c.work || !c.ram || ek_agent_init(&agent, &c) != EK_AGENT_OK) return 2;
    unsigned idle = 0;
    for (unsigned steps = 0; idle < 300 && steps < 300000; steps++) {
        int state = ek_agent_step(&agent);
        if (state == EK_AGENT_DOWN) return 3; /* COBS never needs that */
        idle = state == EK_AGENT_IDLE && f.at == f.len ? idle + 1 : 0;
    }
    int left = f.at != f.len;
    free(c.work);
    free(c.ram);
    free((void *)(uintptr_t)f.data);
    return left ? 4 : 0;
}

int main(int argc, char **argv)
{
    size_t len;
    if (argc < 3) return 2;
    uint8_t *package = load(argv[1], &len);
    for (int i = 2; i < argc; i++) {
        int bad = serve(argv[i], package, len, i & 1);
        if (bad) {
            fprintf(stderr, "%s: %d\n", argv[i], bad);
            return bad;
        }
    }
    return 0;
}
