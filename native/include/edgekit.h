/* EdgeKit runtime: the whole public C API.  C11, freestanding, no malloc, no globals.
 *
 *   size_t bytes[EK_MEM_KINDS];
 *   ek_arena_size(pkg, len, 1, bytes);               exact bytes of each kind of memory
 *   ek_config cfg = EK_CONFIG_INIT;  ... package, mem[], mem_len[] ...
 *   ek_session *s;  ek_open(&s, &cfg);               checks everything that can be checked
 *   ek_tensor in;   ek_input(s, 0, 0, &in);          pointer into memory: write in.data
 *   ek_run(s, 0);                                    entry 0
 *   ek_tensor out;  ek_output(s, 0, 0, &out);        read out.data
 *
 * Rules.  Package bytes are untrusted: every structure is checked by ek_open, and weight bytes can
 * never cause an access outside the given memories.  The package is read in place and must stay
 * mapped and unchanged while a session lives; its address must be aligned to EK_ALIGN_PACKAGE.
 * Re-entrant: no globals; one session must not be used by two threads at once; sessions may share
 * a package and, when they never run at the same time, their EK_MEM_SCRATCH and EK_MEM_MAIN.
 * Not to be called from an interrupt handler that can preempt a call on the same session; any call
 * may itself be interrupted anywhere.  The hook `cancel` runs between ops: yield there.
 * Stack: no recursion and no arrays of variable length, so it depends on the ops, not on data: on
 * Cortex-M about 1.5 KB for int8 models, 2.5 KB for ek_verify with a key.
 * Versioning: EK_VERSION_MAJOR changes when a caller must change; ek_config and ek_op_info grow at
 * their end only.  A 1.x package loads on every later 1.y runtime. */
#ifndef EDGEKIT_H
#define EDGEKIT_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define EK_VERSION_MAJOR 1
#define EK_VERSION_MINOR 0
#define EK_MAX_RANK 8
#define EK_NAME_MAX 96
#if defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#define EK_ALIGN_PACKAGE 16u
#else
#define EK_ALIGN_PACKAGE 64u
#endif

/* ---- status ------------------------------------------------------------------------------------
 * Low 8 bits: code.  Bits 8..11: what the index means.  Bits 12..31: the index. */
typedef uint32_t ek_status;
enum {
    EK_OK = 0,
    EK_ERR_ARGUMENT = 1,   /* a null pointer, a wrong index or an ek_config of unknown size */
    EK_ERR_ALIGNMENT = 2,  /* package or memory pointer not aligned */
    EK_ERR_MAGIC = 3,      /* not an EdgeKit package */
    EK_ERR_VERSION = 4,    /* made for a newer major version */
    EK_ERR_FEATURE = 5,    /* needs a feature this build does not have */
    EK_ERR_TRUNCATED = 6,  /* fewer bytes than the header says */
    EK_ERR_CRC = 7,        /* checksum differs: the file was damaged */
    EK_ERR_STRUCTURE = 8,  /* a table, offset or count is out of range */
    EK_ERR_TENSOR = 9,     /* a tensor's shape, type, place or quantization is not valid */
    EK_ERR_OP = 10,        /* an op's attributes or operands are not valid */
    EK_ERR_OP_MISSING = 11, /* the op is not linked into this build */
    EK_ERR_MEMORY = 12,    /* a memory given by the caller is too small */
    EK_ERR_NAME = 13,      /* no such entry, input, output or tensor */
    EK_ERR_VALUE = 14,     /* a run-time value (index, dimension) is out of range */
    EK_ERR_CANCELLED = 15, /* the caller's cancel hook asked to stop */
    EK_ERR_SELFTEST = 16,  /* the golden vector gives other values on this machine */
    EK_ERR_SIGNATURE = 17, /* signature missing or wrong */
    EK_ERR_ROLLBACK = 18   /* the package is older than the device allows */
};
enum { EK_AT_NONE = 0, EK_AT_OP = 1, EK_AT_TENSOR = 2, EK_AT_SECTION = 3, EK_AT_ENTRY = 4, EK_AT_MEMORY = 5 };
#define EK_STATUS(code, at, index) ((ek_status)(code) | (ek_status)(at) << 8 | (ek_status)(index) << 12)
#define EK_CODE(s) ((s) & 0xffu)
#define EK_AT(s) ((s) >> 8 & 0xfu)
#define EK_INDEX(s) ((s) >> 12)

/* One sentence: what is wrong and what to do.  "" with EK_NO_STRINGS. */
const char *ek_strerror(ek_status s);

/* ---- tensors ---------------------------------------------------------------------------------- */
typedef enum {
    EK_F32 = 0, EK_I8 = 1, EK_U8 = 2, EK_I16 = 3, EK_I32 = 4, EK_I64 = 5, EK_BOOL = 6, EK_F16 = 7,
    EK_BF16 = 8, EK_I4 = 9, EK_I2 = 10, EK_PACKED = 11  /* EK_PACKED: weights in a kernel's layout */
} ek_dtype;

typedef struct ek_tensor {
    void *data;                 /* valid until ek_run for arena tensors */
    size_t bytes;
    uint32_t dims[EK_MAX_RANK]; /* outermost first */
    uint8_t rank;
    uint8_t dtype;              /* ek_dtype */
    uint8_t quantized;          /* 1: real = scale * (value - zero) */
    uint8_t reserved;
    float scale;
    int32_t zero;
    const char *name;           /* in the package, NUL-terminated */
} ek_tensor;

/* ---- memories --------------------------------------------------------------------------------- */
enum {
    EK_MEM_SESSION = 0, /* ek_session itself */
    EK_MEM_MAIN = 1,    /* the arena: activations, inputs, outputs */
    EK_MEM_FAST = 2,    /* tensors the board file put into its fast bank */
    EK_MEM_STATE = 3,   /* persists between runs */
    EK_MEM_SCRATCH = 4, /* working space of one op, once per thread; 0 where one thread's lies in MAIN */
    EK_MEM_KINDS = 5
};
#define EK_ALIGN_MEMORY 16u  /* of every memory pointer; 64 is faster on hosted systems */
#ifdef __cplusplus           /* EK_ALIGNED(16) static uint8_t memory[...]; */
#define EK_ALIGNED(n) alignas(n)
#else
#define EK_ALIGNED(n) _Alignas(n)
#endif

/* Exact bytes of each kind for `threads` threads (0 = 1).  Reads only the header. */
ek_status ek_arena_size(const void *pkg, size_t len, unsigned threads, size_t bytes[EK_MEM_KINDS]);

/* ---- hooks ------------------------------------------------------------------------------------ */
typedef void (*ek_tile_fn)(void *arg, unsigned tile, unsigned thread);
/* Calls fn(arg, 0..tiles-1, thread) in any order, from up to cfg.threads threads, and returns when
 * all are done.  `thread` is below cfg.threads and no two calls with one number overlap. */
typedef void (*ek_parallel_fn)(void *ctx, ek_tile_fn fn, void *arg, unsigned tiles);
/* After each op: index, clock before and after. */
typedef void (*ek_trace_fn)(void *ctx, uint32_t op, uint64_t begin, uint64_t end);
typedef struct ek_op_def ek_op_def;  /* native/src/op.h: for custom ops and op lists */

typedef struct ek_config {
    uint32_t size;              /* sizeof(ek_config): the version of this structure */
    uint32_t threads;           /* 0 or 1: no threads */
    const void *package;
    size_t package_len;
    void *mem[EK_MEM_KINDS];    /* may be NULL where ek_arena_size says 0 */
    size_t mem_len[EK_MEM_KINDS];
    const ek_op_def *const *ops; /* NULL-terminated list; NULL: every op (links them all) */
    uint32_t cpu_mask;          /* bit (1 << ek_isa) allows that ISA; 0xffffffff: all the CPU has */
    uint32_t reserved;
    ek_parallel_fn parallel;    /* NULL: one thread */
    uint64_t (*clock)(void *ctx);
    int (*cancel)(void *ctx);   /* between ops; non-zero stops the run (also the yield hook) */
    ek_trace_fn trace;
    void (*log)(void *ctx, ek_status s); /* every failure, once, before it is returned */
    void *ctx;                  /* given to every hook */
} ek_config;
#define EK_CONFIG_INIT { sizeof(ek_config), 1, 0, 0, {0}, {0}, 0, 0xffffffffu, 0, 0, 0, 0, 0, 0, 0 }

/* ---- session ---------------------------------------------------------------------------------- */
typedef struct ek_session ek_session;
typedef struct ek_ref { uint8_t kind; uint8_t reserved; uint16_t entry; uint32_t index; } ek_ref;
enum { EK_REF_ENTRY = 0, EK_REF_INPUT = 1, EK_REF_OUTPUT = 2, EK_REF_TENSOR = 3 };

ek_status ek_open(ek_session **s, const ek_config *cfg);
/* Entry, input, output or (for debugging) any tensor by name, looked up in that order. */
ek_status ek_find(ek_session *s, const char *name, ek_ref *r);
ek_status ek_input(ek_session *s, unsigned entry, unsigned i, ek_tensor *t);
ek_status ek_output(ek_session *s, unsigned entry, unsigned i, ek_tensor *t);
/* Any tensor of the package; its bytes are meaningful after a run only where the plan kept them. */
ek_status ek_tensor_at(ek_session *s, uint32_t index, ek_tensor *t);
ek_status ek_set_dim(ek_session *s, unsigned entry, unsigned sym, uint32_t n);
/* Runs one entry.  Fails only on run-time values (index, dimension) and on cancel. */
ek_status ek_run(ek_session *s, unsigned entry);
ek_status ek_reset(ek_session *s);  /* state back to its initial bytes */
typedef struct ek_key { const uint8_t *ed25519; uint64_t min_rollback; } ek_key;
/* CRC of every section; with a key also signature and rollback counter.  Reads every byte. */
ek_status ek_verify(const void *pkg, size_t len, const ek_key *key);
/* Runs every golden vector and compares.  Overwrites inputs and state. */
ek_status ek_selftest(ek_session *s);

/* ---- what is inside --------------------------------------------------------------------------- */
typedef struct ek_counts { uint32_t entries, ops, tensors, goldens; } ek_counts;
ek_status ek_count(ek_session *s, ek_counts *c);
ek_status ek_entry(ek_session *s, unsigned entry, const char **name, uint32_t *inputs, uint32_t *outputs);
typedef struct ek_op_info {
    const char *name;    /* of the node in the model */
    const char *type;    /* op, as in `conv2d` */
    const char *isa;     /* whose kernel runs it: "portable", "avx2", ... */
    uint32_t entry, version, inputs, outputs;
    uint32_t exact;      /* 1: the same bits on every runtime */
    uint32_t kernel;     /* EK_K_* of native/src/kernels.h, 255: the op's own loops */
} ek_op_info;
ek_status ek_op(ek_session *s, uint32_t op, ek_op_info *info);
ek_status ek_op_tensor(ek_session *s, uint32_t op, uint32_t i, uint32_t *tensor); /* inputs, then outputs; absent = 0xffffffff */
uint32_t ek_cpu(void);              /* bits (1 << ek_isa) of what this CPU and this build have */
const char *ek_isa_name(unsigned isa); /* NULL past the end */
const char *ek_version(void);
uint32_t ek_crc32(uint32_t crc, const void *data, size_t len); /* zlib's CRC-32; start with 0 */

#ifdef __cplusplus
}
#endif
#endif
