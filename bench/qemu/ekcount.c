/* ekcount: QEMU plugin that counts executed guest instructions between marks (native/port/marker.h).
 *
 *   qemu-aarch64 -plugin libekcount.so,out=FILE program
 *   qemu-system-arm -plugin libekcount.so,out=FILE -M mps2-an386 -kernel firmware.elf
 *   qemu-aarch64 -plugin libekcount.so,out=FILE,counter=SHARED program   the count is a u64 in SHARED,
 *                                        which the program maps: a clock that counts instructions
 *   ... -plugin libekcount.so,out=FILE,profile=PROFILE ...   what the last marked run executed
 *
 * FILE gets one line `mark N`, the HINT's number and the instructions executed before it, and at exit
 * `total N`.  Marks are not counted.  Counting is exact for one thread; an exception inside a straight
 * piece of code over-counts that piece once.
 *
 * PROFILE gets `isa a64|t32`, then for every straight piece of code that the last marked run executed
 * `block ADDRESS COUNT SYMBOL` and for each of its instructions `OPCODE BYTES`, hexadecimal opcodes.
 *
 * Every translated block is cut at the marks.  The first instruction of each piece adds the piece's
 * length to one counter, inline; a mark calls back, so that the counter is right when it is read.
 *
 * The declarations are those of QEMU's plugin interface version 1 (QEMU 4.2 to 8.x), of which only
 * these few are used; QEMU resolves them when it loads the library. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t {
    const char *target_name;
    struct { int min, cur; } version;
    bool system_emulation;
    union { struct { int smp_vcpus, max_vcpus; } system; };
} qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*ek_on_block)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*ek_on_insn)(unsigned vcpu, void *data);
typedef void (*ek_on_exit)(qemu_plugin_id_t, void *data);
enum { NO_REGISTERS = 0, INLINE_ADD_U64 = 0 };
enum { BEGIN = 96, END = 98, CLOCK = 99 }; /* EK_MARK_*; CLOCK cuts, and is not recorded */
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, ek_on_block);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, ek_on_insn, int, void *);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int, void *, uint64_t);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, ek_on_exit, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *);

EXPORT int qemu_plugin_version = 1;
EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv);

/* A straight piece of code, once for each translation of it. */
typedef struct piece {
    struct piece *next;
    uint64_t executed, before, run; /* in all, when the last run began, within it */
    uint64_t address;
    char *symbol;
    size_t n;
    struct { uint32_t op; unsigned bytes; } insn[]; /* (n) */
} piece;

static uint64_t own, *executed = &own;
static FILE *out, *profile;
static piece *pieces;
static bool thumb;

static unsigned bytes_of(struct qemu_plugin_insn *insn)
{
    const uint8_t *b = qemu_plugin_insn_data(insn);
    return !thumb || b[1] >> 3 >= 0x1d ? 4 : 2;
}

static uint32_t opcode(struct qemu_plugin_insn *insn)
{
    const uint8_t *b = qemu_plugin_insn_data(insn);
    uint32_t low = b[0] | (uint32_t)b[1] << 8;
    if (bytes_of(insn) == 2) return low;
    uint32_t high = b[2] | (uint32_t)b[3] << 8;
    return thumb ? low << 16 | high : high << 16 | low;
}

/* Number of the HINT (96..127) that the instruction is, or 0.  The size is taken from the opcode:
 * QEMU 7.2 reports too many bytes for a Thumb instruction near the end of a page. */
static unsigned mark_of(struct qemu_plugin_insn *insn)
{
    uint32_t op = opcode(insn);
    unsigned hint = thumb ? op & 0xffu : op >> 5 & 0x7fu;
    if (bytes_of(insn) != 4 || (thumb ? op >> 8 != 0xf3af80u : (op & 0xfffff01fu) != 0xd503201fu)) return 0;
    return hint >= 96 && hint < 128 ? hint : 0;
}

static void on_mark(unsigned vcpu, void *data)
{
    unsigned mark = (unsigned)(uintptr_t)data;
    (void)vcpu;
    fprintf(out, "%u %" PRIu64 "\n", mark, *executed);
    for (piece *p = profile && mark != CLOCK ? pieces : NULL; p; p = p->next)
        if (mark == BEGIN)
            p->before = p->executed;
        else if (mark == END)
            p->run = p->executed - p->before, p->before = p->executed;
}

/* Counts a piece by itself as well. */
static void add_piece(struct qemu_plugin_tb *tb, size_t first, size_t end)
{
    struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, first);
    const char *symbol = qemu_plugin_insn_symbol(insn);
    piece *p = calloc(1, sizeof *p + (end - first) * sizeof p->insn[0]);
    if (!p) abort();
    p->address = qemu_plugin_insn_vaddr(insn);
    p->symbol = strdup(symbol && *symbol ? symbol : "?");
    p->n = end - first;
    for (size_t i = 0; i < p->n; i++) {
        struct qemu_plugin_insn *at = qemu_plugin_tb_get_insn(tb, first + i);
        p->insn[i].op = opcode(at);
        p->insn[i].bytes = bytes_of(at);
    }
    p->next = pieces;
    pieces = p;
    qemu_plugin_register_vcpu_insn_exec_inline(insn, INLINE_ADD_U64, &p->executed, 1);
}

static void on_block(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    size_t n = qemu_plugin_tb_n_insns(tb), first = 0;
    (void)id;
    for (size_t i = 0; i <= n; i++) {
        struct qemu_plugin_insn *insn = i < n ? qemu_plugin_tb_get_insn(tb, i) : NULL;
        unsigned mark = insn ? mark_of(insn) : 0;
        if (insn && !mark) continue;
        if (i > first) {
            qemu_plugin_register_vcpu_insn_exec_inline(qemu_plugin_tb_get_insn(tb, first), INLINE_ADD_U64, executed,
                                                       i - first);
            if (profile) add_piece(tb, first, i);
        }
        if (mark && mark != CLOCK) qemu_plugin_register_vcpu_insn_exec_cb(insn, on_mark, NO_REGISTERS, (void *)(uintptr_t)mark);
        first = i + 1;
    }
}

static void on_exit_(qemu_plugin_id_t id, void *data)
{
    (void)id, (void)data;
    fprintf(out, "total %" PRIu64 "\n", *executed);
    fclose(out);
    if (!profile) return;
    fprintf(profile, "isa %s\n", thumb ? "t32" : "a64");
    for (const piece *p = pieces; p; p = p->next) {
        if (!p->run) continue;
        fprintf(profile, "block %" PRIx64 " %" PRIu64 " %s\n", p->address, p->run, p->symbol);
        for (size_t i = 0; i < p->n; i++) fprintf(profile, "%" PRIx32 " %u\n", p->insn[i].op, p->insn[i].bytes);
    }
    fclose(profile);
}

static bool share(const char *path)
{
    int file = open(path, O_RDWR | O_CREAT, 0600);
    bool sized = file >= 0 && ftruncate(file, 4096) == 0;
    void *at = sized ? mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
    if (file >= 0) close(file);
    if (at == MAP_FAILED) return false;
    executed = at;
    *executed = 0;
    return true;
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    const char *path = NULL, *profile_path = NULL;
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "out=", 4))
            path = argv[i] + 4;
        else if (!strncmp(argv[i], "profile=", 8))
            profile_path = argv[i] + 8;
        else if (!strncmp(argv[i], "counter=", 8) && !share(argv[i] + 8)) {
            fprintf(stderr, "ekcount: cannot map %s\n", argv[i] + 8);
            return -1;
        }
    out = path ? fopen(path, "w") : NULL;
    if (!out) {
        fprintf(stderr, "ekcount: cannot write %s\n", path ? path : "(no out=FILE given)");
        return -1;
    }
    profile = profile_path ? fopen(profile_path, "w") : NULL;
    if (profile_path && !profile) {
        fprintf(stderr, "ekcount: cannot write %s\n", profile_path);
        return -1;
    }
    thumb = strcmp(info->target_name, "aarch64") != 0;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    qemu_plugin_register_atexit_cb(id, on_exit_, NULL);
    return 0;
}
