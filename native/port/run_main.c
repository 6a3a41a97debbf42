/* ek-run: runs a package on a hosted system, for tests and for boards without Python.
 *
 *   ek-run package in.bin out.bin [--isa MASK] [--bench N]
 *
 * in.bin is a u32 number of samples, then for each sample a u32 entry and the bytes of all inputs, one
 * after the other; out.bin gets for each sample a u32 size and the bytes of all outputs.  The console
 * tells what was opened and which ISA runs each op.  --isa: bits (1 << ek_isa) that may be used.  --bench: the
 * last sample is run N times more and each time is printed.  Exit code: 0, or 1 with a sentence. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "edgekit.h"
#include "marker.h"

typedef struct options {
    const char *package, *in, *out;
    uint32_t isa, bench;
} options;

static uint64_t now_ns(void *ctx)
{
    struct timespec t;
    (void)ctx;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void on_op(void *ctx, uint32_t op, uint64_t begin, uint64_t end)
{
    (void)ctx, (void)op, (void)begin, (void)end;
    EK_MARK(EK_MARK_OP);
}

static int fail(const char *what, ek_status s)
{
    fprintf(stderr, "error: %s: %s; status %u\n", what, ek_strerror(s), (unsigned)s);
    return 1;
}

static int fail_file(const char *path)
{
    fprintf(stderr, "error: %s: %s\n", path, errno ? strerror(errno) : "too short");
    return 1;
}

static const void *map(const char *path, size_t *len)
{
    struct stat st;
    int file = open(path, O_RDONLY);
    if (file < 0) return NULL;
    void *at = MAP_FAILED;
    if (fstat(file, &st) == 0 && st.st_size > 0) {
        *len = (size_t)st.st_size;
        at = mmap(NULL, *len, PROT_READ, MAP_PRIVATE, file, 0);
    }
    int why = errno;
    close(file);
    errno = why;
    return at == MAP_FAILED ? NULL : at;
}

static ek_status open_package(ek_session **s, const void *package, size_t len, uint32_t isa)
{
    ek_config c = EK_CONFIG_INIT;
    ek_status e = ek_arena_size(package, len, 1, c.mem_len);
    if (e != EK_OK) return e;
    for (unsigned kind = 0; kind < EK_MEM_KINDS; kind++) {
        printf("memory %zu\n", c.mem_len[kind]);
        c.mem[kind] = aligned_alloc(64, (c.mem_len[kind] + 64) / 64 * 64);
        if (!c.mem[kind]) return EK_STATUS(EK_ERR_MEMORY, EK_AT_MEMORY, kind);
    }
    c.package = package;
    c.package_len = len;
    c.cpu_mask = isa;
    c.clock = now_ns;
    c.trace = on_op;
    return ek_open(s, &c);
}

static ek_status print_ops(ek_session *s)
{
    ek_counts counts;
    ek_op_info info;
    ek_status e = ek_count(s, &counts);
    for (uint32_t op = 0; e == EK_OK && op < counts.ops; op++) {
        e = ek_op(s, op, &info);
        if (e == EK_OK) printf("op %s %s %s\n", info.isa, info.type, info.name);
    }
    return e;
}

/* Leaves the entry in *entry_run for the benchmark. */
static int run_sample(ek_session *s, FILE *in, FILE *out, uint32_t *entry_run)
{
    ek_tensor t;
    const char *name;
    uint32_t entry, inputs, outputs, bytes = 0;
    if (fread(&entry, sizeof entry, 1, in) != 1) return fail_file("inputs");
    ek_status e = ek_entry(s, entry, &name, &inputs, &outputs);
    if (e != EK_OK) return fail("entry", e);
    for (uint32_t i = 0; i < inputs; i++) {
        e = ek_input(s, entry, i, &t);
        if (e != EK_OK) return fail("input", e);
        if (fread(t.data, 1, t.bytes, in) != t.bytes) return fail_file("inputs");
    }
    EK_MARK(EK_MARK_BEGIN);
    e = ek_run(s, entry);
    EK_MARK(EK_MARK_END);
    if (e != EK_OK) return fail("run", e);
    *entry_run = entry;
    for (uint32_t i = 0; i < outputs; i++) {
        e = ek_output(s, entry, i, &t);
        if (e != EK_OK) return fail("output", e);
        bytes += (uint32_t)t.bytes;
    }
    if (fwrite(&bytes, sizeof bytes, 1, out) != 1) return fail_file("outputs");
    for (uint32_t i = 0; i < outputs; i++) {
        e = ek_output(s, entry, i, &t);
        if (e != EK_OK) return fail("output", e);
        if (fwrite(t.data, 1, t.bytes, out) != t.bytes) return fail_file("outputs");
    }
    return 0;
}

static int run_samples(ek_session *s, const options *o, FILE *in, FILE *out)
{
    uint32_t samples, entry = 0;
    if (fread(&samples, sizeof samples, 1, in) != 1) return fail_file(o->in);
    for (uint32_t n = 0; n < samples; n++)
        if (run_sample(s, in, out, &entry)) return 1;
    printf("samples %u\n", (unsigned)samples);
    for (uint32_t n = 0; n < o->bench; n++) {
        uint64_t begin = now_ns(NULL);
        ek_status e = ek_run(s, entry);
        if (e != EK_OK) return fail("run", e);
        printf("run_ns %llu\n", (unsigned long long)(now_ns(NULL) - begin));
    }
    return 0;
}

static int run(const options *o)
{
    size_t len = 0;
    ek_session *s;
    errno = 0;
    const void *package = map(o->package, &len);
    if (!package) return fail_file(o->package);
    ek_status e = ek_verify(package, len, NULL);
    if (e != EK_OK) return fail("verify", e);
    e = open_package(&s, package, len, o->isa);
    if (e != EK_OK) return fail("open", e);
    e = ek_selftest(s);
    if (e != EK_OK) return fail("selftest", e);
    puts("selftest passed");
    e = print_ops(s);
    if (e == EK_OK) e = ek_reset(s);
    if (e != EK_OK) return fail("reset", e);
    FILE *in = fopen(o->in, "rb");
    if (!in) return fail_file(o->in);
    FILE *out = fopen(o->out, "wb");
    if (!out) {
        fail_file(o->out);
        fclose(in);
        return 1;
    }
    int failed = run_samples(s, o, in, out);
    fclose(in);
    if (fclose(out) && !failed) return fail_file(o->out);
    return failed;
}

int main(int argc, char **argv)
{
    options o = { .isa = 0xffffffffu };
    if (argc < 4 || argc % 2) {
        fprintf(stderr, "usage: ek-run package in.bin out.bin [--isa MASK] [--bench N]\n");
        return 2;
    }
    o.package = argv[1];
    o.in = argv[2];
    o.out = argv[3];
    for (int i = 4; i < argc; i += 2) {
        uint32_t value = (uint32_t)strtoul(argv[i + 1], NULL, 0);
        if (!strcmp(argv[i], "--isa")) {
            o.isa = value;
        } else if (!strcmp(argv[i], "--bench")) {
            o.bench = value;
        } else {
            fprintf(stderr, "error: unknown option %s\n", argv[i]);
            return 2;
        }
    }
    return run(&o);
}
