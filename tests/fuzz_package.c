/* Mutates a package, repairs its checksums, opens and runs it: nothing may crash, hang or touch foreign memory.
 *
 *   fuzz_package PACKAGE COUNT SEED RUN [--every]
 *
 * COUNT seeded mutants; --every: besides, three values for every byte of header, tables, op records and plan and for every
 * hundredth weight byte.  Of those that open, each RUN-th is run (a net of many MACs takes long under the sanitizers).  Prints one
 * line: mutants, past (got past the checksum), opened, ran, and how many ended with each status of ek_open.  Built with
 * -fsanitize=address,undefined by bench/fuzz.py.  With FUZZ_HEADER, the header of a folder of `build --format c`, PACKAGE is "-":
 * the folder's array is mutated and opened with its op list and in memories of its sizes. */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "edgekit.h"
#include "format.h"
#ifdef FUZZ_HEADER
#include FUZZ_HEADER
#define THREADS 1u
#else
#define THREADS (1 + next() % 2)
#endif

#define MEMORY_MAX ((size_t)64 << 20) /* what a careful caller would give */

static uint32_t rng = 1;
static unsigned long current;
static unsigned long mutants, past, opened, ran, run_each, by_code[32], by_run[32];

static uint32_t next(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 17;
    rng ^= rng << 5;
    return rng;
}

static void hang(int sig)
{
    (void)sig;
    char text[64];
    int n = snprintf(text, sizeof text, "HANG in mutant %lu\n", current);
    if (n > 0 && write(2, text, (size_t)n) < 0)
        _exit(4);
    _exit(3);
}

static void *aligned(size_t size)
{
    void *p = 0;
    return posix_memalign(&p, 64, size ? size : 1) ? 0 : p;
}

/* every section's and the header's CRC, as far as the (possibly mutated) table lets us find them */
static void repair(uint8_t *p, size_t len)
{
    ek_header *h = (ek_header *)(void *)p;
    ek_section *s = (ek_section *)(void *)(h + 1);
    uint32_t n = h->sections;
    if (sizeof *h + (uint64_t)n * sizeof *s > len)
        return;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t at = (uint64_t)s[i].offset * EK_UNIT;
        if (s[i].kind != EK_SECT_DATA && at <= len && s[i].bytes <= len - at) /* DATA is not read by ek_open */
            s[i].crc = ek_crc32(0, p + at, (size_t)s[i].bytes);
    }
    h->crc = 0;
    uint32_t crc = ek_crc32(0, h, sizeof *h);
    h->crc = ek_crc32(crc, s, n * sizeof *s);
}

static void run_all(ek_session *s)
{
    ek_counts c;
    ek_count(s, &c);
    for (uint32_t e = 0; e < c.entries; e++) {
        const char *name;
        uint32_t in, out;
        ek_tensor t;
        ek_entry(s, e, &name, &in, &out);
        for (uint32_t i = 0; i < in; i++) {
            ek_input(s, e, i, &t);
            memset(t.data, 0x5a, t.bytes);
        }
        by_run[EK_CODE(ek_run(s, e)) & 31]++;
    }
    for (uint32_t i = 0; i < c.ops; i++) {
        ek_op_info info;
        ek_op(s, i, &info);
    }
    ek_ref r;
    ek_find(s, "no such name", &r);
    by_run[EK_CODE(ek_selftest(s)) & 31]++;
    ran++;
}

/* the mutant lies at the end of its own allocation, so that a read past its last byte is seen */
static void attempt(uint8_t *p, size_t len, unsigned threads)
{
    size_t need[EK_MEM_KINDS];
    ek_config cfg = EK_CONFIG_INIT;
    mutants++;
    alarm(20);
    ek_status e = ek_arena_size(p, len, threads, need);
    if (!e) {
        past++;
#ifdef FUZZ_HEADER
        static uint8_t place[16]; /* only the lengths are taken */
        FUZZ_CONFIG(&cfg, place);
        memcpy(need, cfg.mem_len, sizeof need);
#endif
        cfg.package = p;
        cfg.package_len = len;
        cfg.threads = threads;
        cfg.cpu_mask = next() & 1 ? 0xffffffffu : 0;
        size_t total = 0;
        for (int i = 0; i < EK_MEM_KINDS; i++)
            total += need[i];
        for (int i = 0; total <= MEMORY_MAX && i < EK_MEM_KINDS; i++) {
            cfg.mem[i] = aligned(need[i]);
            cfg.mem_len[i] = need[i];
            memset(cfg.mem[i], 0xa5, need[i]);
        }
        ek_session *s = 0;
        if (total > MEMORY_MAX) {
            e = EK_ERR_MEMORY;
        } else {
            e = ek_open(&s, &cfg);
        }
        if (!e) {
            if (opened++ % run_each == 0)
                run_all(s);
        }
        for (int i = 0; i < EK_MEM_KINDS; i++)
            free(cfg.mem[i]);
    }
    if (mutants % 16 == 0)
        by_run[EK_CODE(ek_verify(p, len, 0)) & 31]++;
    if (!ek_strerror(e)[0]) {
        fprintf(stderr, "status %u has no sentence\n", (unsigned)e);
        exit(5);
    }
    by_code[EK_CODE(e) & 31]++;
    alarm(0);
}

static uint32_t interesting(uint32_t old)
{
    static const uint32_t v[] = { 0, 1, 2, 3, 7, 16, 63, 64, 127, 128, 255, 256, 0xffff, 0x10000, 0x7fffffff, 0x80000000u,
                                  0xfffffff0u, 0xffffffffu, 0x7f800000u, 0x7fc00000u, 0xff800000u };
    uint32_t k = next() % (sizeof v / sizeof *v + 4);
    if (k < sizeof v / sizeof *v)
        return v[k];
    return k & 1 ? old + (next() % 9) - 4 : next();
}

/* offsets of all n bytes that are structure, then up to *weights of every hundredth weight byte */
static size_t structure(const uint8_t *p, uint32_t *at, size_t *weights)
{
    const ek_header *h = (const ek_header *)(const void *)p;
    const ek_section *s = (const ek_section *)(const void *)(h + 1);
    size_t n = 0;
    for (size_t i = 0; i < sizeof *h + h->sections * sizeof *s; i++)
        at[n++] = (uint32_t)i;
    for (uint32_t k = 0; k < h->sections; k++)
        if (s[k].kind != EK_SECT_DATA && s[k].kind != EK_SECT_META && !(s[k].flags & EK_SECTION_UNPACKED))
            for (uint64_t i = 0; i < s[k].bytes; i++)
                at[n++] = (uint32_t)(s[k].offset * (uint64_t)EK_UNIT + i);
    *weights = n;
    for (uint32_t k = 0; k < h->sections; k++)
        if (s[k].kind == EK_SECT_DATA)
            for (uint64_t i = next() % 100; i < s[k].bytes; i += 100)
                at[(*weights)++] = (uint32_t)(s[k].offset * (uint64_t)EK_UNIT + i);
    return n;
}

static uint8_t *read_file(const char *path, size_t *len)
{
#ifdef FUZZ_HEADER
    (void)path;
    *len = sizeof FUZZ_PACKAGE;
    uint8_t *p = (uint8_t *)aligned(*len);
    if (p)
        memcpy(p, FUZZ_PACKAGE, *len);
    return p;
#else
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(2);
    }
    fseek(f, 0, SEEK_END);
    *len = (size_t)ftell(f);
    rewind(f);
    uint8_t *p = (uint8_t *)aligned(*len);
    if (!p || fread(p, 1, *len, f) != *len)
        exit(2);
    fclose(f);
    return p;
#endif
}

/* three values for each byte in turn; one byte in flash flips a bit, gets its complement, gets noise */
static void every_byte(const uint8_t *good, uint8_t *p, size_t len, const uint32_t *at, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < 3; k++, current++) {
            memcpy(p, good, len);
            uint8_t old = p[at[i]];
            p[at[i]] = k == 0 ? (uint8_t)(old ^ 1u << (next() & 7)) : k == 1 ? (uint8_t)(old ^ 0xffu) : (uint8_t)next();
            repair(p, len);
            attempt(p, len, 1);
        }
}

/* one to three places changed, 15 of 16 of them structure; one mutant in 32 is cut short */
static void random_mutant(const uint8_t *good, uint8_t *p, size_t len, const uint32_t *at, size_t n)
{
    memcpy(p, good, len);
    for (uint32_t k = 1 + next() % 3; k; k--) {
        uint32_t where = next() % 16 ? at[next() % n] : next() % (uint32_t)len;
        if (next() & 1) {
            p[where] = (uint8_t)next();
        } else {
            uint32_t v;
            where &= ~3u;
            if (where + 4 > len)
                continue;
            memcpy(&v, p + where, 4);
            v = interesting(v);
            memcpy(p + where, &v, 4);
        }
    }
    repair(p, len);
    if (next() % 32) {
        attempt(p, len, THREADS);
        return;
    }
    size_t cut = next() % len; /* in an allocation of that size */
    uint8_t *q = (uint8_t *)aligned(cut);
    memcpy(q, p, cut);
    attempt(q, cut, 1);
    free(q);
}

int main(int argc, char **argv)
{
    if (argc < 5 || (run_each = strtoul(argv[4], 0, 10)) == 0) {
        fprintf(stderr, "usage: fuzz_package PACKAGE COUNT SEED RUN [--every]\n");
        return 2;
    }
    size_t len, weights;
    uint8_t *good = read_file(argv[1], &len), *p = (uint8_t *)aligned(len);
    uint32_t *at = (uint32_t *)malloc(len * sizeof *at);
    if (!p || !at)
        return 2;
    signal(SIGALRM, hang);
    rng = (uint32_t)strtoul(argv[3], 0, 10) * 2654435761u + 1;
    size_t n = structure(good, at, &weights);
    attempt(good, len, 1);
    if (opened != 1) {
        fprintf(stderr, "%s does not open\n", argv[1]);
        return 2;
    }
    if (argc > 5)
        every_byte(good, p, len, at, weights);
    for (unsigned long i = strtoul(argv[2], 0, 10); i; i--, current++)
        random_mutant(good, p, len, at, n);
    printf("mutants %lu past %lu opened %lu ran %lu", mutants, past, opened, ran);
    for (int i = 0; i < 32; i++)
        if (by_code[i])
            printf(" open:%d %lu", i, by_code[i]);
    for (int i = 0; i < 32; i++)
        if (by_run[i])
            printf(" run:%d %lu", i, by_run[i]);
    printf("\n");
    free(at);
    free(p);
    free(good);
    return 0;
}
