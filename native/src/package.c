/* Reads a package and checks all of its structure.  Bytes are untrusted: no offset is followed before it is checked. */
#include "session.h"
#include <string.h>
#include "signature.h"

static const ek_header *header_of(const void *pkg, size_t len, ek_status *e)
{
    const ek_header *h = (const ek_header *)pkg;
    *e = EK_OK;
    if (!pkg)
        *e = EK_ERR_ARGUMENT;
    else if ((uintptr_t)pkg % EK_ALIGN_PACKAGE)
        *e = EK_ERR_ALIGNMENT;
    else if (len < sizeof(uint32_t) || h->magic != EK_MAGIC)
        *e = EK_ERR_MAGIC;
    else if (len < sizeof(ek_header))
        *e = EK_ERR_TRUNCATED;
    else if (h->major != EK_VERSION_MAJOR)
        *e = EK_ERR_VERSION;
    else if (h->required & ~((uint32_t)EK_FEATURES | (EK_UNPACK ? EK_FEATURE_UNPACKED : 0)))
        *e = EK_ERR_FEATURE;
    else if (h->file_bytes > len)
        *e = EK_ERR_TRUNCATED;
    else if (h->sections > 64 || sizeof(ek_header) + h->sections * sizeof(ek_section) > h->file_bytes)
        *e = EK_STATUS(EK_ERR_STRUCTURE, EK_AT_SECTION, 0);
    else {
        /* the header and section table are small: their CRC is checked at every open */
        ek_header copy = *h;
        copy.crc = 0;
        uint32_t crc = ek_crc32(0, &copy, sizeof copy);
        crc = ek_crc32(crc, h + 1, h->sections * sizeof(ek_section));
        if (crc != h->crc)
            *e = EK_ERR_CRC;
        for (int i = 0; i < EK_MEM_KINDS; i++)
            if (h->mem[i] > 0x07ffffffu)
                *e = EK_STATUS(EK_ERR_STRUCTURE, EK_AT_MEMORY, i);
    }
    return h;
}

#if EK_UNPACK
/* bytes that its constants and tables unpack to */
static size_t unpacked_of(const ek_header *h) { return h->required & EK_FEATURE_UNPACKED ? (size_t)h->mem[EK_MEM_SESSION] * EK_UNIT : 0; }
#else
static size_t unpacked_of(const ek_header *h) { (void)h; return 0; }
#endif

/* ops of a package of which only the header and the section table are known to be right */
static size_t ops_of(const ek_header *h)
{
    const ek_section *s = (const ek_section *)(const void *)(h + 1);
    for (uint32_t i = 0; EK_KEEP && i < h->sections; i++)
        if (s[i].kind == EK_SECT_OPS_ && s[i].stride
            && s[i].bytes <= (EK_UNPACK && s[i].flags & EK_SECTION_UNPACKED ? unpacked_of(h) : h->file_bytes))
            return (size_t)(s[i].bytes / s[i].stride);
    return 0;
}

ek_status ek_arena_size(const void *pkg, size_t len, unsigned threads, size_t bytes[EK_MEM_KINDS])
{
    ek_status e;
    const ek_header *h = header_of(pkg, len, &e);
    if (e || !bytes)
        return e ? e : EK_ERR_ARGUMENT;
    if (threads > 256)
        return EK_ERR_ARGUMENT;
    for (int i = 0; i < EK_MEM_KINDS; i++)
        bytes[i] = (size_t)h->mem[i] * EK_UNIT;
    bytes[EK_MEM_SESSION] = EK_SESSION_BYTES(ops_of(h)) + unpacked_of(h);
    uint64_t scratch = (uint64_t)bytes[EK_MEM_SCRATCH] * (threads > 1 ? threads : !(h->required & EK_FEATURE_PLACED_SCRATCH));
    bytes[EK_MEM_SCRATCH] = (size_t)scratch;
    return scratch > 0x7fffffffu ? EK_STATUS(EK_ERR_STRUCTURE, EK_AT_MEMORY, EK_MEM_SCRATCH) : EK_OK; /* would wrap in 32 bits */
}

static int table_of(ek_table *t, const ek_section *s, const uint8_t *base, size_t record)
{
    /* older writers' records are shorter: never, today's are the first */
    if (s->stride < record || s->stride % (record < 4 ? record : 4))
        return 0;
    uint64_t count = ek_div_u64(s->bytes, s->stride);
    if (count > 0xfffffu || count * s->stride != s->bytes)
        return 0;
    t->base = base;
    t->stride = s->stride;
    t->count = (uint32_t)count;
    return 1;
}

static int take_section(ek_package *p, const ek_section *s, const uint8_t *base)
{
    switch (s->kind) {
    case EK_SECT_STRS:
        p->strs = (const char *)base;
        p->strs_bytes = (uint32_t)s->bytes;
        return s->bytes > 0 && s->bytes <= 0x7fffffffu && base[s->bytes - 1] == 0;
    case EK_SECT_ATTR:
        p->attr = base;
        p->attr_bytes = (uint32_t)s->bytes;
        return s->bytes <= 0x7fffffffu;
    case EK_SECT_WORD:
        p->word = (const uint32_t *)(const void *)base;
        p->words = (uint32_t)(s->bytes / 4);
        return s->bytes <= 0x7fffffffu;
    case EK_SECT_NAME:
        p->name = (const uint32_t *)(const void *)base;
        p->names = (uint32_t)(s->bytes / 4);
        return s->bytes <= 0x7fffffffu;
    case EK_SECT_REFS: return table_of(&p->refs, s, base, 2) && s->stride <= 4;
    case EK_SECT_DATA: p->data = base; p->data_bytes = s->bytes; return 1;
    case EK_SECT_STAT: p->stat = base; p->stat_bytes = s->bytes; return 1;
    case EK_SECT_GDAT: p->gdat = base; p->gdat_bytes = s->bytes; return 1;
    case EK_SECT_TENS: return table_of(&p->tensors, s, base, sizeof(ek_tensor_rec));
    case EK_SECT_VARI: return table_of(&p->variants, s, base, offsetof(ek_variant, encoding));
    case EK_SECT_OPS_: return table_of(&p->ops, s, base, offsetof(ek_op_rec, name));
    case EK_SECT_ENTR: return table_of(&p->entries, s, base, sizeof(ek_entry_rec));
    case EK_SECT_GOLD: return table_of(&p->goldens, s, base, sizeof(ek_golden_rec));
#if EK_UNPACK
    case EK_SECT_UNPK: p->few = base; p->few_bytes = s->bytes; return 1;
#endif
    case EK_SECT_META: return 1;
    default: return 1; /* ignorable: ek_package_read has looked */
    }
}

static int known(uint32_t kind)
{
    static const uint32_t kinds[] = { EK_SECT_STRS, EK_SECT_TENS, EK_SECT_WORD, EK_SECT_NAME, EK_SECT_VARI, EK_SECT_REFS, EK_SECT_ATTR, EK_SECT_OPS_,
                                      EK_SECT_ENTR, EK_SECT_DATA, EK_SECT_STAT, EK_SECT_GOLD, EK_SECT_GDAT, EK_SECT_META,
#if EK_UNPACK
                                      EK_SECT_UNPK,
#endif
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i] == kind)
            return 1;
    return 0;
}

/* the sections that every package has */
static ek_status all_there(const ek_package *p)
{
    if (!p->strs || !p->tensors.base || !p->ops.base || !p->entries.base || !p->entries.count || !p->refs.base)
        return EK_STATUS(EK_ERR_STRUCTURE, EK_AT_SECTION, p->header->sections);
    return EK_OK;
}

ek_status ek_package_read(ek_package *p, const void *pkg, size_t len)
{
    ek_status e;
    memset(p, 0, sizeof *p);
    const ek_header *h = header_of(pkg, len, &e);
    if (e)
        return e;
    p->header = h;
    const ek_section *s = (const ek_section *)(const void *)(h + 1);
    for (uint32_t i = 0; i < h->sections; i++) {
        uint64_t at = (uint64_t)s[i].offset * EK_UNIT;
        int unpacked = EK_UNPACK && s[i].flags & EK_SECTION_UNPACKED; /* must not be what it is unpacked from */
        if (unpacked ? !(h->required & EK_FEATURE_UNPACKED) || s[i].kind == EK_SECT_UNPK || s[i].kind == EK_SECT_DATA
                     : at > h->file_bytes || s[i].bytes > h->file_bytes - at)
            return EK_STATUS(EK_ERR_STRUCTURE, EK_AT_SECTION, i);
        for (uint32_t j = 0; j < i; j++)
            if (s[j].kind == s[i].kind)
                return EK_STATUS(EK_ERR_STRUCTURE, EK_AT_SECTION, i);
        if ((s[i].flags & 1) && !known(s[i].kind))
            return EK_STATUS(EK_ERR_FEATURE, EK_AT_SECTION, i);
        if (!unpacked && !take_section(p, &s[i], (const uint8_t *)pkg + at))
            return EK_STATUS(EK_ERR_STRUCTURE, EK_AT_SECTION, i);
    }
    return EK_UNPACK && h->required & EK_FEATURE_UNPACKED ? EK_OK : all_there(p);
}

#if EK_UNPACK
ek_status ek_package_unpack(ek_package *p, uint8_t *memory_end)
{
    const ek_header *h = p->header;
    const ek_section *s = (const ek_section *)(const void *)(h + 1);
    uint64_t room = p->unpacked_bytes = unpacked_of(h);
    p->unpacked = memory_end - (size_t)room;
    if (room && !p->few)
        return EK_STATUS(EK_ERR_STRUCTURE, EK_AT_SECTION, h->sections);
    for (uint32_t i = 0; i < h->sections; i++)
        if (s[i].kind == EK_SECT_UNPK && !ek_unpack(p->few, p->few_bytes, memory_end - (size_t)room, room))
            return EK_STATUS(EK_ERR_STRUCTURE, EK_AT_SECTION, i);
    for (uint32_t i = 0; i < h->sections; i++) {
        uint64_t at = (uint64_t)s[i].offset * EK_UNIT;
        if (s[i].flags & EK_SECTION_UNPACKED && (at > room || s[i].bytes > room - at || !take_section(p, &s[i], p->unpacked + at)))
            return EK_STATUS(EK_ERR_STRUCTURE, EK_AT_SECTION, i);
    }
    return all_there(p);
}
#endif

uint32_t ek_dtype_bytes(uint32_t dtype)
{
    static const uint8_t bytes[] = { 4, 1, 1, 2, 4, 8, 1, 2, 2 };
    return dtype < sizeof bytes ? bytes[dtype] : 0;
}

uint32_t ek_variant_encoding(const ek_package *p, const ek_variant *v)
{
    uint32_t encoding = p->variants.stride < sizeof *v ? EK_ENC_PLAIN : v->encoding;
#if EK_UNPACK
    if (ek_unpacked(p, v))
        return EK_ENC_PLAIN;
#endif
    return encoding;
}

/* what one block of sparse weights stores lies in the file; *at: its bytes, moved past it */
static int list_ok(const ek_variant *v, uint32_t encoding, const uint8_t **at, const uint8_t *end, uint32_t k)
{
    uint32_t size = (uint32_t)v->nr * v->kr, slots = encoding >> 8, count;
    const uint8_t *b = *at;
    if ((encoding & 0xff) == EK_ENC_NM) {
        uint64_t steps = (uint64_t)(ek_up(k, EK_CHUNK) / EK_CHUNK) * (slots / v->kr);
        if (steps * 2 * size > (uint64_t)(end - b))
            return 0;
        *at = b + steps * 2 * size;
        return 1;
    }
    if (end - b < 4)
        return 0;
    memcpy(&count, b, 4);
    b += 4;
    if (count > 0xffff || (uint64_t)ek_up(count, 2) * 2 + (uint64_t)count * size > (uint64_t)(end - b))
        return 0;
    *at = b + ek_up(count, 2) * 2 + count * size;
    return 1;
}

/* Sparse int8 weights (n, k): blocks follow each other inside the variant.  Kernels keep places inside the rows.
 * Groups have no lists: their op looks at their size. */
static int encoding_ok(const ek_package *p, const ek_variant *v, const ek_tensor_rec *t)
{
    uint32_t encoding = ek_variant_encoding(p, v), kind = encoding & 0xff, slots = encoding >> 8, size = (uint32_t)v->nr * v->kr;
    const uint32_t *dims = p->word + t->words;
    if (encoding == EK_ENC_PLAIN || encoding == EK_ENC_PAIRS || (EK_UNPACK && kind == EK_ENC_APART)) /* its op looks at its heads */
        return 1;
    if (kind == EK_ENC_GROUPS)
        return v->dtype == EK_I8 || v->dtype == EK_I4 || v->dtype == EK_I2;
    if (t->rank != 2 || dims[1] > 0xffffffu || v->dtype != EK_I8 || size % 4 || v->nr > 64 || v->kr > 64
        || (v->xoff != 0 && v->xoff != 128))
        return 0;
    if (kind == EK_ENC_NM ? !slots || slots > EK_CHUNK || slots % v->kr : kind != EK_ENC_BLOCKS || slots)
        return 0;
    const uint8_t *b = p->data + (size_t)v->offset * EK_UNIT, *end = b + v->bytes;
    for (uint32_t n = 0; n < dims[0]; n += v->nr) {
        if (end - b < 8 * v->nr)
            return 0;
        b += 8 * v->nr;
        if (!list_ok(v, encoding, &b, end, dims[1]))
            return 0;
    }
    return 1;
}

uint32_t ek_tensor_count(const ek_package *p, const ek_tensor_rec *t)
{
    uint32_t n = 1;
    for (uint32_t i = 0; i < t->rank; i++)
        n *= p->word[t->words + i];
    return n;
}

uint32_t ek_tensor_bytes(const ek_package *p, const ek_tensor_rec *t)
{
    return ek_tensor_count(p, t) * ek_dtype_bytes(t->dtype);
}

const char *ek_tensor_name(const ek_package *p, uint32_t tensor) { return tensor < p->names ? p->strs + p->name[tensor] : ""; }

const char *ek_op_name(const ek_package *p, uint32_t op)
{
    return p->ops.stride < sizeof(ek_op_rec) ? "" : p->strs + ek_op_get(p, op)->name;
}

static int tensor_ok(const ek_package *p, const ek_tensor_rec *t)
{
    uint64_t n = 1;
    uint32_t unpacked = EK_UNPACK ? t->place & EK_TENSOR_UNPACKED : 0; /* constants that are not packed alone */
    if (t->rank > EK_MAX_RANK || t->dtype > EK_PACKED || (t->place & ~(EK_KIND_MASK | EK_TENSOR_QUANTIZED)) != unpacked
        || (unpacked && (t->dtype == EK_PACKED || ek_kind(t) != EK_KIND_CONST))
        || (uint64_t)t->words + t->rank + (t->place & EK_TENSOR_QUANTIZED ? 2u : 0u) > p->words)
        return 0;
    for (uint32_t i = 0; i < t->rank; i++) {
        n *= p->word[t->words + i];
        if (n - 1 > 0x7ffffffeu) /* 0 too */
            return 0;
    }
    if (t->dtype == EK_PACKED) {
        if (ek_kind(t) != EK_KIND_CONST || !t->variants || (uint64_t)t->offset + t->variants > p->variants.count)
            return 0;
        for (uint32_t i = 0; i < t->variants; i++) /* a build without the kernel leaves the check out, and refuses in its op */
            if (EK_USES(GEMM_SPARSE) && !encoding_ok(p, (const ek_variant *)ek_record(&p->variants, t->offset + i), t))
                return 0;
        return 1;
    }
    uint32_t size = t->dtype > EK_BOOL ? 0 : ek_dtype_bytes(t->dtype); /* others are reserved */
    if (!size || n * size > 0x7fffffffu)
        return 0;
    uint64_t end = (uint64_t)t->offset * EK_UNIT + n * size;
    uint32_t kind = ek_kind(t);
    switch (kind) {
#if EK_UNPACK
    case EK_KIND_CONST: return end <= (unpacked ? p->unpacked_bytes : p->data_bytes);
#else
    case EK_KIND_CONST: return end <= p->data_bytes;
#endif
    case EK_KIND_STATE: return end <= p->stat_bytes && end <= (uint64_t)p->header->mem[EK_MEM_STATE] * EK_UNIT;
    case EK_KIND_MAIN:
    case EK_KIND_FAST: return end <= (uint64_t)p->header->mem[kind] * EK_UNIT;
    default: return 0;
    }
}

static int variant_in_file(const ek_package *p, const ek_variant *v)
{
    uint64_t bytes = p->data_bytes;
#if EK_UNPACK
    if (ek_unpacked(p, v))
        bytes = p->unpacked_bytes;
#endif
    return (uint64_t)v->offset * EK_UNIT + v->bytes <= bytes && v->nr && v->kr;
}

static int refs_ok(const ek_package *p, uint32_t first, uint32_t n, int absent_ok)
{
    if ((uint64_t)first + n > p->refs.count)
        return 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t r = ek_operand(p, first + i);
        if (r >= p->tensors.count && !(absent_ok && r == EK_NONE))
            return 0;
    }
    return 1;
}

/* Whether a tensor lies in some bytes of a memory: their ends are below 2^31, see tensor_ok and header_of. */
static int overlap(const ek_package *p, const ek_tensor_rec *t, uint32_t kind, uint32_t at, uint32_t bytes)
{
    uint32_t first = t->offset * EK_UNIT;
    return ek_kind(t) == kind && first < at + bytes && at < first + ek_tensor_bytes(p, t);
}

/* Operands and scratch that has a place in MAIN lie apart, save that an output may begin where an input begins to which the
 * op grants it. */
static int apart(const ek_package *p, const ek_op_rec *o)
{
    uint32_t bytes, at = ek_scratch_at(p, o, &bytes), kind = EK_KIND_MAIN;
    if (bytes > p->header->mem[EK_MEM_SCRATCH] * EK_UNIT || bytes % EK_UNIT)
        return 0;
    if (!(p->header->required & EK_FEATURE_PLACED_SCRATCH))
        bytes = 0;
    else if (at + bytes > p->header->mem[EK_MEM_MAIN] * EK_UNIT)
        return 0;
    for (uint32_t i = o->outputs;;) { /* scratch and all operands, then the last output and those before it */
        for (uint32_t j = 0; j < o->inputs + i; j++) {
            uint32_t q = ek_operand(p, o->refs + j);
            if (q == EK_NONE || !bytes || !overlap(p, ek_tensor_get(p, q), kind, at, bytes))
                continue;
            if (i == o->outputs || j >= o->inputs || j >= 8 || !(o->flags & (uint32_t)EK_OP_GRANT0 << j)
                || ek_tensor_get(p, q)->offset * EK_UNIT != at)
                return 0;
        }
        if (!i--)
            return 1;
        uint32_t r = ek_operand(p, o->refs + o->inputs + i);
        bytes = 0;
        if (r == EK_NONE)
            continue;
        const ek_tensor_rec *y = ek_tensor_get(p, r);
        bytes = ek_tensor_bytes(p, y);
        kind = ek_kind(y);
        at = y->offset * EK_UNIT;
    }
}

static int op_ok(const ek_package *p, const ek_op_rec *o)
{
    if ((uint32_t)o->inputs + o->outputs > EK_OPERANDS_MAX || o->outputs > EK_OUTPUTS_MAX)
        return 0;
    if (o->attr % 4 || o->attr > p->attr_bytes || (p->ops.stride >= sizeof *o && o->name >= p->strs_bytes))
        return 0;
    if (!refs_ok(p, o->refs, (uint32_t)o->inputs + o->outputs, 1))
        return 0;
    for (uint32_t i = 0; i < o->outputs; i++) {
        uint32_t r = ek_operand(p, o->refs + o->inputs + i);
        if (r != EK_NONE && ek_kind(ek_tensor_get(p, r)) == EK_KIND_CONST)
            return 0;
    }
    return apart(p, o);
}

static int entry_ok(const ek_package *p, const ek_entry_rec *e)
{
    if (e->name >= p->strs_bytes || (uint64_t)e->op0 + e->ops > p->ops.count)
        return 0;
    if (!refs_ok(p, e->refs, (uint32_t)e->inputs + e->outputs, 0))
        return 0;
    for (uint32_t i = 0; i < (uint32_t)e->inputs + e->outputs; i++) {
        const ek_tensor_rec *t = ek_tensor_get(p, ek_operand(p, e->refs + i));
        if (t->dtype == EK_PACKED || (i < e->inputs && ek_kind(t) == EK_KIND_CONST))
            return 0;
    }
    return 1;
}

static uint64_t golden_bytes(const ek_package *p, const ek_golden_rec *g)
{
    const ek_entry_rec *e = ek_entry_get(p, g->entry);
    uint64_t n = (uint64_t)e->inputs * 8;
    for (uint32_t i = 0; i < e->outputs; i++)
        n += g->exact ? 4 : ek_tensor_bytes(p, ek_tensor_get(p, ek_operand(p, e->refs + e->inputs + i)));
    return n;
}

ek_status ek_package_check(const ek_package *p)
{
    for (uint32_t i = 0; i < p->variants.count; i++)
        if (!variant_in_file(p, (const ek_variant *)ek_record(&p->variants, i)))
            return EK_STATUS(EK_ERR_STRUCTURE, EK_AT_NONE, 0);
    for (uint32_t i = 0; i < p->tensors.count; i++)
        if (!tensor_ok(p, ek_tensor_get(p, i)))
            return EK_STATUS(EK_ERR_TENSOR, EK_AT_TENSOR, i);
    for (uint32_t i = 0; i < p->names; i++)
        if (p->name[i] >= p->strs_bytes)
            return EK_STATUS(EK_ERR_STRUCTURE, EK_AT_TENSOR, i);
    /* references and golden data are used once each, in order: no small file asks for endless checking */
    uint64_t end = 0;
    for (uint32_t i = 0; i < p->ops.count; i++) {
        const ek_op_rec *o = ek_op_get(p, i);
        if (o->refs < end || !op_ok(p, o))
            return EK_STATUS(EK_ERR_OP, EK_AT_OP, i);
        end = (uint64_t)o->refs + o->inputs + o->outputs;
    }
    end = 0;
    for (uint32_t i = 0; i < p->entries.count; i++) {
        const ek_entry_rec *e = ek_entry_get(p, i);
        if (e->refs < end || !entry_ok(p, e))
            return EK_STATUS(EK_ERR_STRUCTURE, EK_AT_ENTRY, i);
        end = (uint64_t)e->refs + e->inputs + e->outputs;
    }
    end = 0;
    for (uint32_t i = 0; i < p->goldens.count; i++) {
        const ek_golden_rec *g = (const ek_golden_rec *)ek_record(&p->goldens, i);
        uint64_t at = (uint64_t)g->data * EK_UNIT;
        if (g->entry >= p->entries.count || at < end || golden_bytes(p, g) != g->data_bytes
            || at + g->data_bytes > p->gdat_bytes)
            return EK_STATUS(EK_ERR_STRUCTURE, EK_AT_ENTRY, i);
        end = at + g->data_bytes;
    }
    return EK_OK;
}

uint32_t ek_crc32(uint32_t crc, const void *data, size_t len)
{
    /* nibble table: 64 bytes of flash, two steps a byte; a file is read once */
    static const uint32_t t[16] = {
        0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u, 0x4db26158u, 0x5005713cu,
        0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu, 0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu,
    };
    const uint8_t *p = (const uint8_t *)data;
    crc = ~crc;
    for (size_t i = 0; i < len; i++) {
        crc ^= p[i];
        crc = t[crc & 15u] ^ crc >> 4;
        crc = t[crc & 15u] ^ crc >> 4;
    }
    return ~crc;
}

/* it is no part of the file */
static int stays_packed(const ek_section *s) { return EK_UNPACK && s->flags & EK_SECTION_UNPACKED; }

/* Header and section table with their checksums of SIGN and header as 0, then SHA-512 of every other section. */
static ek_status signature_ok(const ek_package *p, const void *pkg, const uint8_t *key)
{
#ifdef EK_NO_SIGNATURE
    (void)p, (void)pkg, (void)key;
    return EK_ERR_SIGNATURE; /* this build carries no signature check: never pretend */
#else
    const ek_section *s = (const ek_section *)(const void *)(p->header + 1);
    const uint8_t *sign = 0, *bytes = (const uint8_t *)pkg;
    for (uint32_t i = 0; i < p->header->sections; i++)
        if (s[i].kind == EK_SECT_SIGN && s[i].bytes >= 64)
            sign = bytes + (size_t)s[i].offset * EK_UNIT;
    if (!sign)
        return EK_ERR_SIGNATURE;
    ek_sha512 hash, part;
    uint8_t digest[64];
    ek_header head = *p->header;
    head.crc = 0;
    ek_sha512_begin(&hash);
    ek_sha512_add(&hash, sign, 32);
    ek_sha512_add(&hash, key, 32);
    ek_sha512_add(&hash, &head, sizeof head);
    for (uint32_t i = 0; i < p->header->sections; i++) {
        ek_section one = s[i];
        if (one.kind == EK_SECT_SIGN)
            one.crc = 0;
        ek_sha512_add(&hash, &one, sizeof one);
    }
    for (uint32_t i = 0; i < p->header->sections; i++) {
        if (s[i].kind == EK_SECT_SIGN || stays_packed(&s[i]))
            continue;
        ek_sha512_begin(&part);
        ek_sha512_add(&part, bytes + (size_t)s[i].offset * EK_UNIT, (size_t)s[i].bytes);
        ek_sha512_end(&part, digest);
        ek_sha512_add(&hash, digest, 64);
    }
    return ek_ed25519_check(sign, key, &hash) ? EK_OK : EK_ERR_SIGNATURE;
#endif
}

/* The bytes between sections are 0, so that no bit of a file is unchecked. */
static int padding_ok(const uint8_t *pkg, uint64_t at, uint64_t end)
{
    for (; at < end; at++)
        if (pkg[at])
            return 0;
    return at == end;
}

ek_status ek_verify(const void *pkg, size_t len, const ek_key *key)
{
    ek_package p;
    ek_status e = ek_package_read(&p, pkg, len);
    if (e)
        return e;
    const ek_section *s = (const ek_section *)(const void *)(p.header + 1);
    uint64_t end = sizeof(ek_header) + p.header->sections * sizeof(ek_section); /* of what was checked */
    for (uint32_t i = 0; i < p.header->sections; i++) {
        uint64_t at = (uint64_t)s[i].offset * EK_UNIT;
        if (stays_packed(&s[i]))
            continue;
        if (!padding_ok((const uint8_t *)pkg, end, at)
            || ek_crc32(0, (const uint8_t *)pkg + (size_t)at, (size_t)s[i].bytes) != s[i].crc)
            return EK_STATUS(EK_ERR_CRC, EK_AT_SECTION, i);
        end = at + s[i].bytes;
    }
    if (!padding_ok((const uint8_t *)pkg, end, p.header->file_bytes))
        return EK_ERR_CRC;
    if (key && key->ed25519 && (e = signature_ok(&p, pkg, key->ed25519)) != EK_OK)
        return e;
    if (key && p.header->rollback < key->min_rollback)
        return EK_ERR_ROLLBACK;
    return EK_OK;
}
