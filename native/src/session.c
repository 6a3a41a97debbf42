/* Opens, runs and reports: an interpreter over a plan made on the host. */
#include "session.h"
#include <string.h>
#include "oplist.h"

/* A build for one model gives its own list and must not link them all. */
#ifdef EK_NO_OP_LIST
static const ek_op_def *const *const every_op = 0;
#else
static const ek_op_def *const *const every_op = ek_ops_all;
#endif

ek_status ek_fail(const ek_session *s, ek_status e)
{
    if (e && s->cfg.log)
        s->cfg.log(s->cfg.ctx, e);
    return e;
}

static void find_op(ek_session *s, uint32_t op, ek_slot *o)
{
    const ek_op_rec *r = ek_op_get(&s->p, op);
    const ek_op_def *const *list = s->cfg.ops ? s->cfg.ops : every_op;
    while (*list && ((*list)->code != r->code || (*list)->version != r->version))
        list++;
    o->def = *list;
    o->c = (ek_ctx){ .s = s, .rec = r, .attr = s->p.attr + r->attr, .k = &s->k, .threads = s->cfg.threads };
    uint32_t at = ek_scratch_at(&s->p, r, &o->c.granted);
    o->c.scratch = (uint8_t *)s->cfg.mem[EK_MEM_SCRATCH] + (s->cfg.threads > 1 ? 0 : at);
#if EK_KEEP
    o->c.kept = o->kept;
#endif
}

/* where op number `op` is kept, else `own` */
static ek_slot *slot_of(ek_session *s, uint32_t op, ek_slot *own)
{
#if EK_KEEP
    (void)own;
    return (ek_slot *)(void *)((uint8_t *)s + EK_SESSION_BYTES(0)) + op;
#else
    (void)s, (void)op;
    return own;
#endif
}

static uint8_t *tensor_data(const ek_session *s, const ek_tensor_rec *t)
{
    if (t->dtype == EK_PACKED)
        return 0;
#if EK_UNPACK
    if (t->place & EK_TENSOR_UNPACKED)
        return (uint8_t *)(uintptr_t)(s->p.unpacked + (size_t)t->offset * EK_UNIT);
#endif
    if (ek_kind(t) == EK_KIND_CONST) /* never written: outputs cannot be constants, see op_ok */
        return (uint8_t *)(uintptr_t)(s->p.data + (size_t)t->offset * EK_UNIT);
    return (uint8_t *)s->cfg.mem[ek_kind(t)] + (size_t)t->offset * EK_UNIT;
}

/* operand i of n, whose references begin at `first` */
static ek_view view_of(const ek_ctx *c, uint32_t i, uint32_t n, uint32_t first)
{
    static const ek_view none;
    const ek_package *p = &c->s->p;
    uint32_t r = i < n ? ek_operand(p, first + i) : EK_NONE;
    if (r == EK_NONE)
        return none;
    const ek_tensor_rec *t = ek_tensor_get(p, r);
    ek_view v; /* every field is set: an op asks for a dozen of these, clearing them first costs as much again */
    v.rec = t;
    v.data = tensor_data(c->s, t);
    v.dims = p->word + t->words;
    v.rank = t->rank;
    v.dtype = t->dtype;
    v.count = 1;
    for (uint32_t k = 0; k < v.rank; k++)
        v.count *= v.dims[k];
    v.bytes = v.count * ek_dtype_bytes(t->dtype);
    v.scale = 0;
    v.zero = 0;
    if (t->place & EK_TENSOR_QUANTIZED) {
        memcpy(&v.scale, v.dims + t->rank, 4);
        memcpy(&v.zero, v.dims + t->rank + 1, 4);
    }
    v.is_const = ek_kind(t) == EK_KIND_CONST;
    return v;
}

ek_view ek_in(const ek_ctx *c, uint32_t i) { return view_of(c, i, c->rec->inputs, c->rec->refs); }
ek_view ek_out(const ek_ctx *c, uint32_t i) { return view_of(c, i, c->rec->outputs, c->rec->refs + c->rec->inputs); }

uint32_t ek_encoding(const ek_ctx *c, const ek_variant *v) { return ek_variant_encoding(&c->s->p, v); }

const uint8_t *ek_packed(const ek_ctx *c, uint32_t i, uint32_t encoding, unsigned nr, unsigned kr, unsigned xoff, const ek_variant **v)
{
    const ek_package *p = &c->s->p;
    uint32_t r = i < c->rec->inputs ? ek_operand(p, c->rec->refs + i) : EK_NONE;
    if (r == EK_NONE)
        return 0;
    const ek_tensor_rec *t = ek_tensor_get(p, r);
    if (t->dtype != EK_PACKED)
        return 0;
    *v = 0;
    for (uint32_t j = 0; j < t->variants; j++) {
        const ek_variant *w = (const ek_variant *)ek_record(&p->variants, t->offset + j);
        if (encoding != EK_ENC_ANY && (ek_variant_encoding(p, w) & 0xff) != encoding)
            continue;
        if (w->nr == nr && w->kr == kr && (xoff == EK_XOFF_ANY || w->xoff == xoff)) {
            *v = w;
            break;
        }
        if (!*v && (encoding == EK_ENC_PLAIN || encoding == EK_ENC_ANY)) /* portable C reads every layout */
            *v = w;
    }
#if EK_UNPACK
    if (*v && ek_unpacked(p, *v))
        return p->unpacked + (size_t)(*v)->offset * EK_UNIT;
#endif
    return *v ? p->data + (size_t)(*v)->offset * EK_UNIT : 0;
}

#if EK_UNPACK
const uint8_t *ek_apart(const ek_ctx *c, const ek_variant *v, uint64_t n, uint64_t k)
{
    const ek_package *p = &c->s->p;
    uint32_t bits = v->dtype == EK_I8 ? 8 : v->dtype == EK_I4 ? 4 : v->dtype == EK_I2 ? 2 : 0, place = ek_encoding(c, v) >> 8;
    if (!bits || !n || !k || n > 0xffffffu || k > 0xffffffu || !v->nr || v->nr > 64 || v->nr % 4 || !v->kr || v->kr > 64 || v->xoff)
        return 0;
    uint64_t blocks = ((uint32_t)n + v->nr - 1) / v->nr, deep = ek_up((uint32_t)k, v->kr);
    if (blocks * (v->nr * deep * bits / 8) > v->bytes || v->nr * deep * bits % 8
        || (uint64_t)place * EK_UNIT + blocks * v->nr * 8 > p->unpacked_bytes)
        return 0;
    return p->unpacked + (size_t)place * EK_UNIT;
}
#endif

void ek_for(const ek_ctx *c, ek_tile_fn fn, void *arg, uint32_t tiles)
{
    if (c->s->cfg.parallel && c->threads > 1 && tiles > 1) {
        c->s->cfg.parallel(c->s->cfg.ctx, fn, arg, tiles);
        return;
    }
    for (uint32_t i = 0; i < tiles; i++)
        fn(arg, i, 0);
}

uint32_t ek_even(const ek_ctx *c, uint32_t items, uint32_t most)
{
    uint32_t tile = ek_min_u32(most, items);
#if EK_BANDS /* more than one thread */
    uint32_t threads = c->threads, first = (items - 1) / most / threads + 1;
    uint64_t least = UINT64_MAX;
    for (uint32_t each = first; threads > 1 && each < first + 4; each++) { /* tiles of a thread */
        uint32_t now = (items - 1) / each / threads + 1;
        if ((uint64_t)each * now < least) {
            least = (uint64_t)each * now;
            tile = now;
        }
    }
#endif
    (void)c;
    return tile;
}

#if EK_BANDS
typedef struct spans { ek_span_fn fn; const void *arg; uint32_t count, tile; } spans;

static void span(void *arg, unsigned t, unsigned thread)
{
    const spans *v = (const spans *)arg;
    uint32_t first = t * v->tile;
    (void)thread;
    v->fn(v->arg, first, ek_min_u32(v->tile, v->count - first));
}
#endif

void ek_spans(const ek_ctx *c, ek_span_fn fn, const void *arg, uint32_t count, uint32_t unit, uint64_t bytes)
{
#if EK_BANDS
    if (c->threads > 1 && count * bytes >= 2 * EK_SHARE) {
        uint32_t units = (count - 1) / unit + 1, tile = ek_even(c, units, units);
        spans v = { fn, arg, count, tile < units ? tile * unit : count };
        ek_for(c, span, &v, (count - 1) / v.tile + 1);
        return;
    }
#endif
    (void)c, (void)unit, (void)bytes;
    fn(arg, 0, count);
}

static ek_status check_ops(ek_session *s)
{
    for (uint32_t i = 0; i < s->p.ops.count; i++) {
        const ek_op_rec *r = ek_op_get(&s->p, i);
        ek_slot own, *o = slot_of(s, i, &own);
        find_op(s, i, o);
        const ek_op_def *d = o->def;
        if (!d)
            return EK_STATUS(EK_ERR_OP_MISSING, EK_AT_OP, i);
        if ((uint64_t)r->attr + d->attr_bytes > s->p.attr_bytes || r->inputs < d->min_in || (d->max_in != 255 && r->inputs > d->max_in)
            || r->outputs < d->min_out || (d->max_out != 255 && r->outputs > d->max_out))
            return EK_STATUS(EK_ERR_OP, EK_AT_OP, i);
        if (!d->check(&o->c))
            return EK_STATUS(EK_ERR_OP, EK_AT_OP, i);
        unsigned slot = d->kernel ? d->kernel(&o->c) : EK_K_NONE;
        if (slot < EK_K_COUNT && !(EK_SLOTS >> slot & 1u))
            return EK_STATUS(EK_ERR_OP_MISSING, EK_AT_OP, i);
    }
    return EK_OK;
}

ek_status ek_open(ek_session **out, const ek_config *cfg)
{
    size_t need[EK_MEM_KINDS];
    if (!out || !cfg || cfg->size < sizeof(ek_config) || cfg->threads > 256 || !(cfg->ops || every_op))
        return EK_ERR_ARGUMENT;
    *out = 0;
    ek_status e = ek_arena_size(cfg->package, cfg->package_len, cfg->threads, need);
    if (e)
        return e;
    for (int i = 0; i < EK_MEM_KINDS; i++) {
        if (cfg->mem_len[i] < need[i] || (need[i] && !cfg->mem[i]))
            return EK_STATUS(EK_ERR_MEMORY, EK_AT_MEMORY, i);
        if ((uintptr_t)cfg->mem[i] % EK_ALIGN_MEMORY)
            return EK_STATUS(EK_ERR_ALIGNMENT, EK_AT_MEMORY, i);
    }
    ek_session *s = (ek_session *)cfg->mem[EK_MEM_SESSION];
    memset(s, 0, sizeof *s);
    s->cfg = *cfg;
    s->cfg.threads = cfg->threads ? cfg->threads : 1;
    if (!need[EK_MEM_SCRATCH])
        s->cfg.mem[EK_MEM_SCRATCH] = cfg->mem[EK_MEM_MAIN]; /* it has a place there */
    ek_kernels_portable(&s->k);
    uint32_t have = ek_cpu() & cfg->cpu_mask;
    for (unsigned i = 0; ek_overlays[i].isa; i++)
        if (have >> ek_overlays[i].isa & 1u)
            ek_overlays[i].apply(&s->k);
    if ((e = ek_package_read(&s->p, cfg->package, cfg->package_len)) != EK_OK)
        return ek_fail(s, e);
#if EK_UNPACK
    if ((e = ek_package_unpack(&s->p, (uint8_t *)s + need[EK_MEM_SESSION])) != EK_OK)
        return ek_fail(s, e);
#endif
    if ((e = ek_package_check(&s->p)) != EK_OK)
        return ek_fail(s, e);
    if ((e = check_ops(s)) != EK_OK)
        return ek_fail(s, e);
    *out = s;
    return ek_reset(s);
}

ek_status ek_reset(ek_session *s)
{
    if (!s)
        return EK_ERR_ARGUMENT;
    size_t n = (size_t)s->p.header->mem[EK_MEM_STATE] * EK_UNIT;
    size_t have = n < s->p.stat_bytes ? n : (size_t)s->p.stat_bytes;
    if (n)
        memset((uint8_t *)s->cfg.mem[EK_MEM_STATE] + have, 0, n - have);
    if (have)
        memcpy(s->cfg.mem[EK_MEM_STATE], s->p.stat, have);
    return EK_OK;
}

ek_status ek_run(ek_session *s, unsigned entry)
{
    if (!s || entry >= s->p.entries.count)
        return EK_ERR_ARGUMENT;
    const ek_entry_rec *e = ek_entry_get(&s->p, entry);
    for (uint32_t i = e->op0; i < e->op0 + e->ops; i++) {
        ek_slot own, *o = slot_of(s, i, &own);
        if (!EK_KEEP)
            find_op(s, i, o);
        uint64_t t0 = s->cfg.trace && s->cfg.clock ? s->cfg.clock(s->cfg.ctx) : 0;
        if (!o->def->run(&o->c))
            return ek_fail(s, EK_STATUS(EK_ERR_VALUE, EK_AT_OP, i));
        if (s->cfg.trace)
            s->cfg.trace(s->cfg.ctx, i, t0, s->cfg.clock ? s->cfg.clock(s->cfg.ctx) : 0);
        if (s->cfg.cancel && s->cfg.cancel(s->cfg.ctx))
            return ek_fail(s, EK_STATUS(EK_ERR_CANCELLED, EK_AT_OP, i));
    }
    return EK_OK;
}

/* ---- what is inside ---------------------------------------------------------------------------- */
ek_status ek_tensor_at(ek_session *s, uint32_t index, ek_tensor *t)
{
    if (!s || !t || index >= s->p.tensors.count)
        return EK_ERR_ARGUMENT;
    const ek_tensor_rec *r = ek_tensor_get(&s->p, index);
    memset(t, 0, sizeof *t);
    t->data = tensor_data(s, r);
    t->bytes = r->dtype == EK_PACKED ? 0 : ek_tensor_bytes(&s->p, r);
    const uint32_t *words = s->p.word + r->words;
    memcpy(t->dims, words, r->rank * sizeof *words);
    t->rank = r->rank;
    t->dtype = r->dtype;
    t->quantized = (r->place & EK_TENSOR_QUANTIZED) != 0;
    if (t->quantized) {
        memcpy(&t->scale, words + r->rank, 4);
        memcpy(&t->zero, words + r->rank + 1, 4);
    }
    t->name = ek_tensor_name(&s->p, index);
    return EK_OK;
}

static ek_status entry_tensor(ek_session *s, unsigned entry, unsigned i, int output, ek_tensor *t)
{
    if (!s || entry >= s->p.entries.count)
        return EK_ERR_ARGUMENT;
    const ek_entry_rec *e = ek_entry_get(&s->p, entry);
    if (i >= (output ? e->outputs : e->inputs))
        return EK_ERR_ARGUMENT;
    return ek_tensor_at(s, ek_operand(&s->p, e->refs + (output ? e->inputs : 0u) + i), t);
}

ek_status ek_input(ek_session *s, unsigned entry, unsigned i, ek_tensor *t) { return entry_tensor(s, entry, i, 0, t); }
ek_status ek_output(ek_session *s, unsigned entry, unsigned i, ek_tensor *t) { return entry_tensor(s, entry, i, 1, t); }

ek_status ek_set_dim(ek_session *s, unsigned entry, unsigned sym, uint32_t n)
{
    (void)sym; (void)n;
    /* no package of format 1.0 has symbols: the table that would name them is absent */
    return !s || entry >= s->p.entries.count ? EK_ERR_ARGUMENT : EK_STATUS(EK_ERR_VALUE, EK_AT_ENTRY, entry);
}

/* freestanding: no strcmp */
static int same_name(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

ek_status ek_find(ek_session *s, const char *name, ek_ref *r)
{
    if (!s || !name || !r)
        return EK_ERR_ARGUMENT;
    memset(r, 0, sizeof *r);
    for (uint32_t i = 0; i < s->p.entries.count; i++)
        if (same_name(s->p.strs + ek_entry_get(&s->p, i)->name, name)) {
            r->kind = EK_REF_ENTRY;
            r->entry = (uint16_t)i;
            r->index = i;
            return EK_OK;
        }
    for (uint32_t i = 0; i < s->p.entries.count; i++) {
        const ek_entry_rec *e = ek_entry_get(&s->p, i);
        for (uint32_t j = 0; j < (uint32_t)e->inputs + e->outputs; j++)
            if (same_name(ek_tensor_name(&s->p, ek_operand(&s->p, e->refs + j)), name)) {
                r->kind = j < e->inputs ? EK_REF_INPUT : EK_REF_OUTPUT;
                r->entry = (uint16_t)i;
                r->index = j < e->inputs ? j : j - e->inputs;
                return EK_OK;
            }
    }
    for (uint32_t i = 0; i < s->p.tensors.count; i++)
        if (same_name(ek_tensor_name(&s->p, i), name)) {
            r->kind = EK_REF_TENSOR;
            r->index = i;
            return EK_OK;
        }
    return EK_ERR_NAME;
}

ek_status ek_count(ek_session *s, ek_counts *c)
{
    if (!s || !c)
        return EK_ERR_ARGUMENT;
    c->entries = s->p.entries.count;
    c->ops = s->p.ops.count;
    c->tensors = s->p.tensors.count;
    c->goldens = s->p.goldens.count;
    return EK_OK;
}

ek_status ek_entry(ek_session *s, unsigned entry, const char **name, uint32_t *inputs, uint32_t *outputs)
{
    if (!s || !name || !inputs || !outputs || entry >= s->p.entries.count)
        return EK_ERR_ARGUMENT;
    const ek_entry_rec *e = ek_entry_get(&s->p, entry);
    *name = s->p.strs + e->name;
    *inputs = e->inputs;
    *outputs = e->outputs;
    return EK_OK;
}

ek_status ek_op(ek_session *s, uint32_t op, ek_op_info *info)
{
    if (!s || !info || op >= s->p.ops.count)
        return EK_ERR_ARGUMENT;
    ek_slot own, *o = slot_of(s, op, &own);
    if (!EK_KEEP)
        find_op(s, op, o);
    const ek_op_rec *r = o->c.rec;
    const ek_op_def *d = o->def;
    unsigned slot = d->kernel ? d->kernel(&o->c) : EK_K_NONE;
    memset(info, 0, sizeof *info);
    info->name = ek_op_name(&s->p, op);
    info->type = d->name;
    info->isa = ek_isa_name(slot < EK_K_COUNT ? s->k.isa[slot] : 0);
    for (uint32_t i = 0; i < s->p.entries.count; i++) {
        const ek_entry_rec *e = ek_entry_get(&s->p, i);
        if (op >= e->op0 && op < e->op0 + e->ops)
            info->entry = i;
    }
    info->version = r->version;
    info->inputs = r->inputs;
    info->outputs = r->outputs;
    info->exact = r->flags & 1u;
    info->kernel = slot;
    return EK_OK;
}

ek_status ek_op_tensor(ek_session *s, uint32_t op, uint32_t i, uint32_t *tensor)
{
    if (!s || !tensor || op >= s->p.ops.count)
        return EK_ERR_ARGUMENT;
    const ek_op_rec *r = ek_op_get(&s->p, op);
    if (i >= (uint32_t)r->inputs + r->outputs)
        return EK_ERR_ARGUMENT;
    *tensor = ek_operand(&s->p, r->refs + i);
    return EK_OK;
}

const char *ek_version(void) { return "1.0"; }
