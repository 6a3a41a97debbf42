/* The self-test: inputs from a seed, outputs against what the host computed. */
#include <string.h>
#include "session.h"

/* xorshift32; the same generator as edgekit/package.py */
static uint32_t next(uint32_t *s)
{
    uint32_t x = *s;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *s = x;
}

/* float in [lo, hi) or an integer in [lo, hi], elementwise */
static void fill(const ek_tensor *t, float lo, float hi, uint32_t *seed)
{
    size_t size = ek_dtype_bytes(t->dtype), n = t->bytes / size;
    for (size_t i = 0; i < n; i++) {
        uint32_t u = next(seed) >> 8;
        if (t->dtype == EK_F32) {
            float f = lo + ek_mul_f32((hi - lo), ek_mul_f32((float)u, 5.9604644775390625e-8f));
            memcpy((uint8_t *)t->data + i * 4, &f, 4);
        } else {
            int32_t a = (int32_t)lo;
            uint32_t span = (uint32_t)(int32_t)hi - (uint32_t)a + 1; /* not 0: hi < 2^31, see below */
            int64_t v = (int64_t)a + u % span;
            memcpy((uint8_t *)t->data + i * size, &v, size);
        }
    }
}

static int same(const ek_tensor *t, const uint8_t *want, int exact, float tolerance)
{
    if (exact) {
        uint32_t crc;
        memcpy(&crc, want, 4);
        return ek_crc32(0, t->data, t->bytes) == crc;
    }
    if (t->dtype != EK_F32)
        return memcmp(t->data, want, t->bytes) == 0;
    float top = 0, worst = 0;
    for (size_t i = 0; i < t->bytes / 4; i++) {
        float a, b;
        memcpy(&a, (const uint8_t *)t->data + i * 4, 4);
        memcpy(&b, want + i * 4, 4);
        float d = a > b ? a - b : b - a, m = b < 0 ? -b : b;
        if (!(d <= 3.4e38f))
            return 0;
        worst = d > worst ? d : worst;
        top = m > top ? m : top;
    }
    return worst <= tolerance * top;
}

ek_status ek_selftest(ek_session *s)
{
    if (!s)
        return EK_ERR_ARGUMENT;
    for (uint32_t i = 0; i < s->p.goldens.count; i++) {
        const ek_golden_rec *g = (const ek_golden_rec *)ek_record(&s->p.goldens, i);
        const ek_entry_rec *e = ek_entry_get(&s->p, g->entry);
        const uint8_t *d = s->p.gdat + (size_t)g->data * EK_UNIT;
        uint32_t seed = g->seed ? g->seed : 1;
        ek_tensor t;
        ek_reset(s);
        for (uint32_t j = 0; j < e->inputs; j++, d += 8) {
            float range[2];
            memcpy(range, d, 8);
            if (!(range[0] <= range[1]) || range[0] < -2147483648.0f || range[1] > 2147483520.0f)
                return ek_fail(s, EK_STATUS(EK_ERR_STRUCTURE, EK_AT_ENTRY, g->entry));
            ek_input(s, g->entry, j, &t);
            fill(&t, range[0], range[1], &seed);
        }
        ek_status st = ek_run(s, g->entry);
        if (st)
            return st;
        for (uint32_t j = 0; j < e->outputs; j++) {
            ek_output(s, g->entry, j, &t);
            if (!same(&t, d, (int)g->exact, g->tolerance))
                return ek_fail(s, EK_STATUS(EK_ERR_SELFTEST, EK_AT_ENTRY, g->entry));
            d += g->exact ? 4 : t.bytes;
        }
    }
    return ek_reset(s);
}
