#include "tiny.h"
#include <string.h>
#include "qmath.h"

static void say(ek_tiny *t, const char *text)
{
    size_t n = 0;
    while (text[n])
        n++;
    t->tx(t->ctx, (const uint8_t *)text, n);
}

static void number(ek_tiny *t, uint64_t v)
{
    char text[21];
    unsigned i = sizeof text - 1;
    text[i] = 0;
    do {
        uint32_t rest = 0;
        uint64_t q = 0;
        for (int b = 63; b >= 0; b--) { /* no 64-bit division in the compiler's helpers */
            rest = rest << 1 | (uint32_t)(v >> b & 1u);
            q <<= 1;
            if (rest >= 10) {
                rest -= 10;
                q |= 1;
            }
        }
        text[--i] = (char)('0' + rest);
        v = q;
    } while (v);
    say(t, text + i);
}

/* as %.3f, for |v| below 4 million */
static void decimal(ek_tiny *t, float v)
{
    if (v < 0) {
        say(t, "-");
        v = -v;
    }
    uint32_t m = v < 4e6f ? (uint32_t)(v * 1000.0f + 0.5f) : 4000000000u, rest = m % 1000;
    char text[5] = { '.', (char)('0' + rest / 100), (char)('0' + rest / 10 % 10), (char)('0' + rest % 10), 0 };
    number(t, m / 1000);
    say(t, text);
}

static int open_session(ek_tiny *t)
{
    if (t->session)
        return 1;
    ek_config c = EK_CONFIG_INIT;
    size_t bytes[EK_MEM_KINDS], at = 0;
    if (!t->package || ek_arena_size(t->package, t->package_len, 1, bytes) != EK_OK)
        return 0;
    for (int i = 0; i < EK_MEM_KINDS; i++) {
        if (bytes[i] > t->ram_len - at)
            return 0;
        c.mem[i] = t->ram + at;
        c.mem_len[i] = bytes[i];
        at += (bytes[i] + 15) & ~(size_t)15;
        at = at > t->ram_len ? t->ram_len : at;
    }
    c.package = t->package;
    c.package_len = t->package_len;
    c.ops = t->ops;
    t->bytes = t->ram + at;
    t->want = t->have = 0;
    ek_tensor in;
    if (ek_open(&t->session, &c) != EK_OK || ek_input(t->session, 0, 0, &in) != EK_OK)
        return 0;
    return 4 * in.bytes <= t->ram_len - at;
}

/* What `db` brought as the model's input; 0: another number of bytes. */
static int load_input(ek_tiny *t)
{
    ek_tensor in;
    if (!open_session(t) || ek_input(t->session, 0, 0, &in) != EK_OK)
        return 0;
    if (t->have == in.bytes) {
        uint8_t flip = in.dtype == EK_I8 && in.rank == 4 && in.dims[3] == 3 ? 0x80 : 0; /* an image, unsigned */
        for (uint32_t i = 0; i < t->have; i++)
            ((uint8_t *)in.data)[i] = t->bytes[i] ^ flip;
        return 1;
    }
    if (in.dtype != EK_I8 || t->have != 4 * in.bytes)
        return 0;
    for (size_t i = 0; i < in.bytes; i++) {
        float x;
        memcpy(&x, t->bytes + 4 * i, 4);
        ((int8_t *)in.data)[i] = ek_quantize(x, in.scale, in.zero);
    }
    return 1;
}

static float value(const ek_tensor *o, size_t i)
{
    float x;
    if (o->dtype == EK_I8)
        return ek_dequantize(((const int8_t *)o->data)[i], o->scale, o->zero);
    if (o->dtype == EK_U8)
        return ek_mul_f32((float)((const uint8_t *)o->data)[i] - (float)o->zero, o->scale);
    memcpy(&x, (const uint8_t *)o->data + 4 * i, 4);
    return x;
}

/* class probabilities; of an autoencoder (as many outputs as inputs) the mean squared error */
static void results(ek_tiny *t)
{
    ek_tensor in, o;
    if (!open_session(t) || ek_output(t->session, 0, 0, &o) != EK_OK || ek_input(t->session, 0, 0, &in) != EK_OK) {
        say(t, "e-[No model]\r\n");
        return;
    }
    size_t size = o.dtype == EK_F32 ? 4 : 1, n = o.bytes / size;
    say(t, "m-results-[");
    if (n == in.bytes && t->have == 4 * n) { /* the input's memory may be used again: its values are in bytes */
        float sum = 0;
        for (size_t i = 0; i < n; i++) {
            float x;
            memcpy(&x, t->bytes + 4 * i, 4);
            float d = value(&o, i) - x;
            sum += d * d;
        }
        decimal(t, sum / (float)n);
    } else
        for (size_t i = 0; i < n; i++) {
            if (i)
                say(t, ",");
            decimal(t, value(&o, i));
        }
    say(t, "]\r\n");
}

static void lap(ek_tiny *t)
{
    uint64_t now = t->clock(t->ctx);
    if (t->clock_hz) {
        say(t, "m-lap-us-");
        uint64_t whole = now / t->clock_hz;
        number(t, whole * 1000000u + (now - whole * t->clock_hz) * 1000000u / t->clock_hz);
    } else {
        say(t, "m-lap-instructions-"); /* of an emulator: no time */
        number(t, now);
    }
    say(t, "\r\n");
}

static uint32_t parse(const uint8_t **p)
{
    uint32_t v = 0;
    while (**p == ' ')
        ++*p;
    for (; **p >= '0' && **p <= '9' && v < 100000000u; ++*p)
        v = v * 10 + (uint32_t)(**p - '0');
    return v;
}

static int run_times(ek_tiny *t, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!load_input(t) || ek_run(t->session, 0) != EK_OK)
            return 0;
    return 1;
}

static void infer(ek_tiny *t, const uint8_t *p)
{
    uint32_t n = parse(&p), warm = parse(&p);
    n = n ? n : 1;
    if (!load_input(t)) {
        say(t, "e-[No input: db load, db, then infer]\r\n");
        return;
    }
    say(t, "m-warmup-start-");
    number(t, warm);
    say(t, "\r\n");
    int ok = run_times(t, warm);
    say(t, "m-warmup-done\r\nm-infer-start-");
    number(t, n);
    say(t, "\r\n");
    lap(t);
    ok = ok && run_times(t, n);
    lap(t);
    say(t, ok ? "m-infer-done\r\n" : "e-[Inference failed]\r\n");
    results(t);
}

static int hex(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static void db(ek_tiny *t, const uint8_t *p)
{
    if (memcmp(p, "load ", 5) == 0) {
        p += 5;
        uint32_t want = parse(&p);
        if (!open_session(t) || want > (size_t)(t->ram + t->ram_len - t->bytes)) {
            say(t, "e-[No room or no model]\r\n");
            return;
        }
        t->want = want;
        t->have = 0;
        say(t, "m-[Expecting ");
        number(t, want);
        say(t, " bytes]\r\n");
        return;
    }
    for (; hex(p[0]) >= 0 && hex(p[1]) >= 0; p += 2) {
        if (t->have >= t->want) {
            say(t, "e-[More bytes than expected]\r\n");
            return;
        }
        t->bytes[t->have++] = (uint8_t)(hex(p[0]) << 4 | hex(p[1]));
    }
    if (*p)
        say(t, "e-[Not hexadecimal]\r\n");
    else if (t->want && t->have == t->want)
        say(t, "m-load-done\r\n");
}

static int is(const uint8_t *line, const char *word)
{
    while (*word && *line == (uint8_t)*word)
        line++, word++;
    return !*word && (!*line || *line == ' ');
}

static void command(ek_tiny *t)
{
    const uint8_t *line = t->line;
    while (*line == '\r' || *line == '\n' || *line == ' ')
        line++;
    if (is(line, "name")) {
        say(t, "m-name-dut-[");
        say(t, t->name);
        say(t, "]\r\n");
    } else if (is(line, "profile")) {
        say(t, "m-profile-[ULPMark for tinyML Firmware V0.0.1]\r\nm-model-[edgekit]\r\n");
    } else if (is(line, "timestamp"))
        lap(t);
    else if (is(line, "db"))
        db(t, line + 2 + (line[2] == ' '));
    else if (is(line, "infer"))
        infer(t, line + 5);
    else if (is(line, "results"))
        results(t);
    else if (is(line, "help"))
        say(t, "name% profile% timestamp% db load N% db HEX% infer N W% results%\r\n");
    else
        say(t, "e-[Unknown command]\r\n");
    say(t, "m-ready\r\n");
}

static int text(const uint8_t *line, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (line[i] > 126 || (line[i] < 32 && line[i] != '\r' && line[i] != '\n'))
            return 0;
    return 1;
}

int ek_tiny_step(ek_tiny *t)
{
    uint8_t c;
    while (t->rx(t->ctx, &c, 1)) {
        if (t->at == sizeof t->line) /* no command is so long: only what may begin a frame is kept */
            t->at = 0;
        t->line[t->at++] = c;
        if (c == 0)
            return 1;
        if (c == '%' && text(t->line, t->at)) {
            t->line[t->at - 1] = 0;
            t->at = 0;
            command(t);
        }
    }
    return 0;
}

size_t ek_tiny_rest(ek_tiny *t, uint8_t *buf, size_t cap)
{
    size_t n = t->at - t->given < cap ? t->at - t->given : cap;
    memcpy(buf, t->line + t->given, n);
    t->given += (uint32_t)n;
    return n;
}
