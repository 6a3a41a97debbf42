/* What opening costs:  load PACKAGE RUNS
 *
 * Maps a package, takes its memories from the system, opens it, runs it once and then RUNS times more.  Prints
 * nanoseconds of processor time: "map" (package and memories, pages in place), "open" (structure checked), "first",
 * and each "run"; and "above": KiB of the peak beyond what the process began with, package and memories.  Linux. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "edgekit.h"

#define HUGE ((size_t)2 << 20)

static unsigned long long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (unsigned long long)t.tv_sec * 1000000000u + (unsigned long long)t.tv_nsec;
}

/* Of this program alone: ru_maxrss starts with what the process was before exec. */
static long peak_kib(void)
{
    char line[128];
    long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f)) sscanf(line, "VmHWM: %ld", &kib);
    if (f) fclose(f);
    return kib;
}

static int fail(const char *what, ek_status s)
{
    fprintf(stderr, "error: %s: %s\n", what, s ? ek_strerror(s) : "cannot be read");
    return 1;
}

/* Mapped in one go: page faults one by one cost more. */
static const void *map(const char *path, size_t *len)
{
    struct stat st;
    int file = open(path, O_RDONLY);
    if (file < 0 || fstat(file, &st)) return MAP_FAILED;
    *len = (size_t)st.st_size;
    return mmap(NULL, *len, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
}

/* In huge pages where it fills one: one fault in place of 512. */
static void *memory_of(size_t bytes, size_t *total)
{
    size_t page = bytes < HUGE ? 4096 : HUGE, size = (bytes + page - 1) / page * page;
    void *at = aligned_alloc(page, size + page);
    if (at && page == HUGE) madvise(at, size, MADV_HUGEPAGE);
    if (at) memset(at, 0, bytes);
    *total += size;
    return at;
}

int main(int argc, char **argv)
{
    if (argc != 3) return fprintf(stderr, "usage: load PACKAGE RUNS\n"), 2;
    int runs = atoi(argv[2]);
    size_t memory = 0;
    long before = peak_kib();
    ek_session *s;
    ek_config c = EK_CONFIG_INIT;

    unsigned long long begin = now_ns();
    const void *package = map(argv[1], &c.package_len);
    if (package == MAP_FAILED) return fail(argv[1], 0);
    c.package = package;
    ek_status e = ek_arena_size(package, c.package_len, 1, c.mem_len);
    for (unsigned kind = 0; e == EK_OK && kind < EK_MEM_KINDS; kind++) {
        c.mem[kind] = memory_of(c.mem_len[kind], &memory);
        if (!c.mem[kind]) return fail("memory", 0);
    }
    unsigned long long mapped = now_ns();
    if (e == EK_OK) e = ek_open(&s, &c);
    if (e != EK_OK) return fail("open", e);
    unsigned long long opened = now_ns();
    e = ek_run(s, 0);
    if (e != EK_OK) return fail("run", e);
    unsigned long long done = now_ns();
    printf("map %llu\nopen %llu\nfirst %llu\n", mapped - begin, opened - mapped, done - opened);
    for (int i = 0; i < runs; i++) {
        begin = now_ns();
        if ((e = ek_run(s, 0)) != EK_OK) return fail("run", e);
        printf("run %llu\n", now_ns() - begin);
    }
    printf("above %ld\n", peak_kib() - before - (long)((c.package_len + memory) / 1024));
    return 0;
}
