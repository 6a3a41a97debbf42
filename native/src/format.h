/* The .ekp package as it lies in memory: little-endian, read in place.  Described byte by byte in
 * native/FORMAT.md; written by edgekit/package.py.  Table records may grow at their end: readers step by
 * the section's stride and absent tails read as 0. */
#ifndef EK_FORMAT_H
#define EK_FORMAT_H
#include "edgekit.h"

#define EK_MAGIC 0x1a504b45u /* "EKP\x1a" */
#define EK_NONE 0xffffffffu
#define EK_UNIT 16u /* places of sections, of tensors in DATA and in memories */
#define EK_OPERANDS_MAX 1024u /* inputs and outputs of one op together */
#define EK_OUTPUTS_MAX 64u    /* of one op */
#define EK_FOURCC(a, b, c, d) ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)

/* Bits of ek_header.required.  A package that sets one which this build does not know is refused; most are reserved. */
enum {
    EK_FEATURE_SYMBOLS = 1,  /* dimensions that are symbols with a declared maximum, section SYMS */
    EK_FEATURE_SUBBYTE = 2,  /* operands of type f16, bf16, i4 or i2 */
    EK_FEATURE_ENCODED = 4,  /* constants in an encoding other than EK_ENC_PLAIN */
    EK_FEATURE_EXTERNAL = 8, /* ops that another engine computes, EK_OP_EXTERNAL */
    EK_FEATURE_PACKED_BITS = 16, /* packed weights of type i4 or i2 */
    EK_FEATURE_PLACED_SCRATCH = 32, /* ek_op_rec.scratch says where in MAIN it lies when there is one thread */
    EK_FEATURE_UNPACKED = 64, /* constants that a session unpacks into its memory, section UNPK */
    EK_FEATURES = EK_FEATURE_ENCODED | EK_FEATURE_PACKED_BITS | EK_FEATURE_PLACED_SCRATCH /* those every build knows */
};

typedef struct ek_header {
    uint32_t magic;
    uint16_t major, minor;
    uint32_t required;      /* feature bits a reader must know */
    uint32_t ignorable;     /* feature bits a reader may not know */
    uint64_t file_bytes;
    uint32_t sections;      /* records after this header */
    uint32_t crc;           /* of header and section table, this field taken as 0 */
    uint32_t mem[EK_MEM_KINDS]; /* in EK_UNIT; SESSION: of unpacked constants, its own bytes depend on the build; SCRATCH per thread */
    uint32_t reserved0;
    uint64_t rollback;      /* a device may refuse packages below its own counter */
    uint8_t model_id[32];   /* SHA-256 of the model the package was made from */
    uint8_t reserved[32];
} ek_header;

typedef struct ek_section {
    uint32_t kind;   /* EK_FOURCC */
    uint32_t flags;  /* bit 0: critical, a reader must know the kind; bit 1: EK_SECTION_UNPACKED */
    uint32_t offset; /* EK_UNIT from the start of the package, where they lie in the order of this table; or of what UNPK unpacks */
    uint32_t stride; /* of a record; 0: not a table */
    uint64_t bytes;
    uint32_t crc;
    uint32_t reserved;
} ek_section;

enum { EK_SECTION_CRITICAL = 1, EK_SECTION_UNPACKED = 2 };

typedef struct ek_tensor_rec {
    uint32_t offset;  /* EK_UNIT: in DATA (const) or in its memory; STATE: also in STAT; EK_PACKED: first record in VARI */
    uint32_t words;   /* first of its words in WORD: dims[rank], then scale (float) and zero (int32) where quantized */
    uint8_t dtype;    /* ek_dtype */
    uint8_t rank;
    uint8_t place;    /* EK_KIND_*, EK_TENSOR_QUANTIZED, EK_TENSOR_UNPACKED; other bits are 0 */
    uint8_t variants; /* EK_PACKED: how many layouts */
} ek_tensor_rec;
enum { EK_KIND_CONST = 0, EK_KIND_MAIN = EK_MEM_MAIN, EK_KIND_FAST = EK_MEM_FAST, EK_KIND_STATE = EK_MEM_STATE };
enum { EK_KIND_MASK = 15, EK_TENSOR_QUANTIZED = 16, EK_TENSOR_UNPACKED = 32 /* a constant that UNPK unpacks */ };
/* How the bytes of a constant stand for its elements.  All but the first are of packed weights (native/FORMAT.md); 3 is
 * reserved and refused. */
enum { EK_ENC_PLAIN = 0, EK_ENC_NM = 1 /* N of 64 not zero */, EK_ENC_GROUPS = 2 /* scales by group of inputs */, EK_ENC_CODEBOOK = 3,
       EK_ENC_BLOCKS = 4 /* blocks that are not zero */,
       EK_ENC_PAIRS = 5 /* all, two outputs side by side: ek_pair_at */, EK_ENC_APART = 6 /* all, biases and scales apart, which UNPK unpacks */,
       EK_ENC_UNPACKED = 7 /* all, which UNPK unpacks */, EK_ENC_ANY = 255 /* only asked for */ };
enum { EK_CHUNK = 64 }; /* inputs that the N of EK_ENC_NM are of */

/* One layout of packed weights (n outputs, k inputs): blocks of `nr` outputs, each
 * [bias nr x 4][scale nr x 4 if quantized][k/kr][nr][kr] elements, n and k padded up. */
typedef struct ek_variant {
    uint8_t nr, kr;
    uint8_t xoff;    /* 0 or 128: added to int8 activations; its product is folded into the bias */
    uint8_t dtype;   /* EK_F32, EK_I8, EK_I4 or EK_I2: of the elements */
    uint32_t offset; /* EK_UNIT in DATA */
    uint32_t bytes;
    uint32_t encoding; /* EK_ENC_*; EK_ENC_NM: plus N << 8; EK_ENC_GROUPS: plus inputs of a group << 8;
                        * EK_ENC_APART: plus the place of its biases and scales in what UNPK unpacks, in EK_UNIT, << 8.
                        * Absent in packages where each is 0: see ek_encoding */
} ek_variant;

typedef struct ek_op_rec {
    uint16_t code;
    uint8_t version;
    uint8_t outputs;
    uint16_t inputs;
    uint16_t flags;     /* bit 0: exact; bit 8 + k: input k (0..7) lies where an output lies */
    uint32_t refs;      /* first index in REFS: inputs, then outputs */
    uint32_t attr;      /* offset in ATTR of the op's structure, multiple of 4; ops may share one */
    uint32_t scratch;   /* bytes granted, per thread; EK_FEATURE_PLACED_SCRATCH: in EK_UNIT, plus its place in MAIN << 16 */
    uint32_t name;      /* offset in STRS; absent in packages without names: read it with ek_op_name */
} ek_op_rec;
enum { EK_OP_EXACT = 1, EK_OP_GRANT0 = 256 };
/* Op codes: 1.. are EdgeKit's; 0x8000.. belong to whoever builds with ops of their own; the last one is reserved. */
enum { EK_OP_CUSTOM = 0x8000, EK_OP_EXTERNAL = 0xffff };

typedef struct ek_entry_rec {
    uint32_t name;
    uint32_t op0, ops;   /* range in OPS */
    uint32_t refs;       /* first index in REFS: inputs, then outputs */
    uint16_t inputs, outputs;
} ek_entry_rec;

/* A golden vector: inputs are made from a seed, outputs are compared by CRC-32 (exact) or value. */
typedef struct ek_golden_rec {
    uint32_t entry;
    uint32_t seed;
    uint32_t data;      /* EK_UNIT in GDAT: per input float lo, hi; then per output uint32 crc or the bytes */
    uint32_t data_bytes;
    uint32_t exact;     /* 1: CRC-32 of each output; 0: float32 values follow */
    float tolerance;    /* max |got - want| <= tolerance * max |want|, per output */
} ek_golden_rec;

/* A segment of section UNPK.  They follow each other, and so do the bytes they unpack to, in the session's memory and each a
 * multiple of EK_UNIT; eight bytes of any value end the section.  Twin: edgekit/compact.py. */
typedef struct ek_segment {
    uint8_t kind;
    uint8_t nr, kr, bits;    /* BLOCKS: of n outputs; bits of a weight, 0: none follow their constants */
    uint8_t bias_bits, scale_bits; /* of the codes of an output, the bias below */
    uint16_t base;           /* scale = float of (base + code) << EK_SHORT_SCALE */
    uint16_t n, k;           /* TEXT: bytes that follow, low and high half */
    int32_t low;             /* bias = (low + code) << e, e = EK_SHORT_STEP - exponent of the scale, within 0..EK_SHORT_MOST */
} ek_segment;                /* codes, padded to bytes; weights [ceil(k / kr)][nr][kr] of each block but of no output past n */
enum { EK_SEGMENT_BLOCKS = 1, EK_SEGMENT_POWERS = 2 /* u32 t[n] = round(low r^i), r: a u64 in 2^-64 that follows */,
       EK_SEGMENT_TEXT = 3 /* `low` bytes: literals and repeats of what came before, see unpack.c */ };
enum { EK_SHORT_SCALE = 15, EK_SHORT_STEP = 121, EK_SHORT_MOST = 30, EK_SEGMENT_SLACK = 8 };

#define EK_SECT_STRS EK_FOURCC('S', 'T', 'R', 'S')
#define EK_SECT_TENS EK_FOURCC('T', 'E', 'N', 'S')
#define EK_SECT_WORD EK_FOURCC('W', 'O', 'R', 'D') /* uint32: shapes, scales and zero points of tensors */
#define EK_SECT_NAME EK_FOURCC('N', 'A', 'M', 'E') /* uint32: names of the first tensors, offsets in STRS */
#define EK_SECT_VARI EK_FOURCC('V', 'A', 'R', 'I')
#define EK_SECT_REFS EK_FOURCC('R', 'E', 'F', 'S')
#define EK_SECT_ATTR EK_FOURCC('A', 'T', 'T', 'R')
#define EK_SECT_OPS_ EK_FOURCC('O', 'P', 'S', ' ')
#define EK_SECT_ENTR EK_FOURCC('E', 'N', 'T', 'R')
#define EK_SECT_DATA EK_FOURCC('D', 'A', 'T', 'A')
#define EK_SECT_STAT EK_FOURCC('S', 'T', 'A', 'T')
#define EK_SECT_GOLD EK_FOURCC('G', 'O', 'L', 'D')
#define EK_SECT_GDAT EK_FOURCC('G', 'D', 'A', 'T')
#define EK_SECT_META EK_FOURCC('M', 'E', 'T', 'A')
#define EK_SECT_UNPK EK_FOURCC('U', 'N', 'P', 'K') /* segments: constants in few bits */
#define EK_SECT_SYMS EK_FOURCC('S', 'Y', 'M', 'S') /* reserved: symbols and their maxima; critical */
#define EK_SECT_SIGN EK_FOURCC('S', 'I', 'G', 'N') /* reserved: Ed25519 signature; ignorable */

_Static_assert(sizeof(ek_header) == 128 && sizeof(ek_section) == 32 && sizeof(ek_tensor_rec) == 12, "format");
_Static_assert(sizeof(ek_variant) == 16 && sizeof(ek_op_rec) == 24 && sizeof(ek_entry_rec) == 20, "format");
_Static_assert(sizeof(ek_golden_rec) == 24 && sizeof(ek_segment) == 16, "format");
#endif
