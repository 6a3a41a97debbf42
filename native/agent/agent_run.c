/* What the agent does with a package: commands, and the benchmark as a machine of small steps. */
#include "agent_impl.h"
#include <string.h>

int ek_agent_benching(const agent_impl *a) { return a->bench.phase != BENCH_NONE; }

/* ---- hooks of the runtime --------------------------------------------------------------------- */

static uint64_t on_clock(void *ctx) { return ek_agent_now(ctx); }

static int on_cancel(void *ctx)
{
    agent_impl *a = ctx;
    return a->trace.stop || (a->bench.deadline && ek_agent_now(a) > a->bench.deadline);
}

static uint32_t clamp32(uint64_t v) { return v > 0xffffffffu ? 0xffffffffu : (uint32_t)v; }

static void on_trace(void *ctx, uint32_t op, uint64_t begin, uint64_t end)
{
    agent_impl *a = ctx;
    agent_trace *t = &a->trace;
    if (t->stop_after && op + 1 >= t->stop_after) t->stop = 1;
    if (t->len >= t->cap) return;
    ek_msg_op_time m = {(uint16_t)op, 0, clamp32(begin - t->begin), clamp32(end - begin)};
    if (end - begin > 0xffffffffu) m.flags = EK_TRACE_SATURATED;
    ek_wire_put(&ek_layout_op_time, &m, t->items + (size_t)t->len++ * ek_layout_op_time.size,
                ek_layout_op_time.size);
}

static void on_parallel(void *ctx, ek_tile_fn fn, void *arg, unsigned tiles)
{
    agent_impl *a = ctx;
    a->cfg.parallel(a->cfg.parallel_ctx, fn, arg, tiles);
}

/* ---- session ---------------------------------------------------------------------------------- */

void ek_agent_close(agent_impl *a)
{
    a->s = 0;
    a->copy = 0;
    a->trace.items = 0;
    a->trace.cap = 0;
}

/* Opens (again) on the memories already placed; with `traced`, per-op times are recorded. */
static ek_status open_session(agent_impl *a, int traced)
{
    ek_config c = EK_CONFIG_INIT;
    c.threads = a->threads;
    c.package = a->open_package;
    c.package_len = a->open_len;
    for (unsigned k = 0; k < EK_MEM_KINDS; k++) c.mem[k] = a->mem[k], c.mem_len[k] = a->mem_len[k];
    c.ops = a->cfg.ops;
    c.cpu_mask = a->cpu_mask;
    c.parallel = a->cfg.parallel && a->threads > 1 ? on_parallel : 0;
    c.clock = on_clock;
    c.cancel = on_cancel;
    c.trace = traced ? on_trace : 0;
    c.ctx = a;
    a->traced_session = (uint8_t)traced;
    ek_status s = ek_open(&a->s, &c);
    if (s) a->s = 0;
    return s;
}

static uintptr_t align_up(uintptr_t at) { return (at + EK_ALIGN_PACKAGE - 1) & ~(uintptr_t)(EK_ALIGN_PACKAGE - 1); }

/* Next `bytes` of ram behind `*at`, or NULL. */
static void *carve(const agent_impl *a, uintptr_t *at, size_t bytes)
{
    uintptr_t p = align_up(*at), end = (uintptr_t)a->cfg.ram + a->cfg.ram_len;
    if (p > end || bytes > end - p) return 0;
    *at = p + bytes;
    return (void *)p;
}

static uint16_t place_memories(agent_impl *a, uintptr_t *at)
{
    for (unsigned k = 0; k < EK_MEM_KINDS; k++) {
        size_t need = a->mem_need[k];
        a->mem[k] = 0;
        a->mem_len[k] = need;
        if (!need) continue;
        if (a->cfg.memory)
            a->mem[k] = a->cfg.memory(a->cfg.ctx, k, need);
        else if (a->cfg.mem[k] && a->cfg.mem_len[k] >= need)
            a->mem[k] = a->cfg.mem[k];
        else
            a->mem[k] = carve(a, at, need);
        if (!a->mem[k]) return EK_WIRE_CODE_NO_SPACE;
    }
    return EK_WIRE_CODE_OK;
}

static size_t input_bytes(agent_impl *a, uint32_t entry)
{
    ek_tensor t;
    size_t sum = 0;
    for (uint32_t i = 0; !ek_input(a->s, entry, i, &t); i++) sum += t.bytes;
    return sum;
}

/* What is left of ram: a copy of the inputs (runs may overwrite them) and room for one trace. */
static void place_extras(agent_impl *a, uintptr_t at)
{
    ek_counts n;
    size_t most = 0;
    if (ek_count(a->s, &n)) return;
    for (uint32_t e = 0; e < n.entries; e++) {
        size_t bytes = input_bytes(a, e);
        most = bytes > most ? bytes : most;
    }
    a->copy = carve(a, &at, most);
    a->copy_len = most;
    a->copy_entry = 0;
    if (a->copy) memset(a->copy, 0, most);
    a->trace.items = carve(a, &at, (size_t)n.ops * ek_layout_op_time.size);
    a->trace.cap = a->trace.items ? n.ops : 0;
}

static int source(const agent_impl *a, uint32_t index, const uint8_t **p, size_t *n)
{
    if (index == EK_SOURCE_RESIDENT) {
        *p = a->cfg.resident;
        *n = a->cfg.resident_len;
    } else {
        *p = a->package_done ? a->package : 0;
        *n = (size_t)a->package_len;
    }
    return *p != 0;
}

static uint16_t open_package(agent_impl *a, const ek_msg_cmd *c, uint32_t *status)
{
    ek_agent_close(a);
    if (!source(a, c->index, &a->open_package, &a->open_len)) return EK_WIRE_CODE_NO_PACKAGE;
    uint32_t most = a->cfg.threads ? a->cfg.threads : 1;
    a->threads = c->count && c->count < most ? c->count : c->count ? most : 1;
    a->cpu_mask = c->flags ? c->flags : 0xffffffffu;
    *status = ek_arena_size(a->open_package, a->open_len, a->threads, a->mem_need);
    if (*status) return EK_WIRE_CODE_STATUS;
    uintptr_t at = (uintptr_t)a->cfg.ram;
    if (a->package && !a->cfg.store_begin) at = (uintptr_t)a->package + (size_t)a->package_len;
    uint16_t code = place_memories(a, &at);
    if (code) return code;
    *status = open_session(a, 0);
    if (*status) return EK_WIRE_CODE_STATUS;
    place_extras(a, at);
    return EK_WIRE_CODE_OK;
}

/* One inference with the inputs put back first; *ticks is the time of ek_run alone. */
static ek_status run_once(agent_impl *a, uint32_t entry, uint64_t *ticks)
{
    ek_tensor t;
    size_t at = 0;
    for (uint32_t i = 0; a->copy && a->copy_entry == entry && !ek_input(a->s, entry, i, &t); i++) {
        memcpy(t.data, a->copy + at, t.bytes);
        at += t.bytes;
    }
    a->trace.len = 0;
    a->trace.stop = 0;
    uint64_t begin = a->trace.begin = ek_agent_now(a);
    ek_status s = ek_run(a->s, entry);
    *ticks = ek_agent_now(a) - begin;
    return s;
}

/* ---- commands --------------------------------------------------------------------------------- */

static void answer(agent_impl *a, const ek_msg_result *r)
{
    a->last = *r;
    a->last.data = 0;
    a->last.data_len = 0;
    ek_agent_send(a, EK_MSG_RESULT, &ek_layout_result, r);
}

/* Puts a record behind the head of the RESULT being made. */
static void attach(agent_impl *a, ek_msg_result *r, const ek_wire_layout *l, const void *m)
{
    uint8_t *p = ek_agent_body(a) + ek_layout_result.size;
    r->data = p;
    r->data_len = (uint32_t)ek_wire_put(l, m, p, a->body_max - ek_layout_result.size);
}

static void attach_package(agent_impl *a, ek_msg_result *r)
{
    ek_counts n;
    ek_msg_package_info m;
    memset(&m, 0, sizeof m);
    if (ek_count(a->s, &n)) return;
    m.entries = n.entries;
    m.ops = n.ops;
    m.tensors = n.tensors;
    m.goldens = n.goldens;
    m.package_bytes = a->open_len;
    m.mem_session = (uint32_t)a->mem_need[EK_MEM_SESSION];
    m.mem_main = (uint32_t)a->mem_need[EK_MEM_MAIN];
    m.mem_fast = (uint32_t)a->mem_need[EK_MEM_FAST];
    m.mem_state = (uint32_t)a->mem_need[EK_MEM_STATE];
    m.mem_scratch = (uint32_t)a->mem_need[EK_MEM_SCRATCH];
    m.cpu = ek_cpu() & a->cpu_mask;
    m.flags = a->copy != 0;
    attach(a, r, &ek_layout_package_info, &m);
}

static void copy_text(char *to, size_t cap, const char *from)
{
    memset(to, 0, cap);
    for (size_t i = 0; from && from[i] && i + 1 < cap; i++) to[i] = from[i];
}

static void attach_tensor(agent_impl *a, ek_msg_result *r, const ek_tensor *t)
{
    ek_msg_tensor_info m;
    memset(&m, 0, sizeof m);
    m.bytes = (uint32_t)t->bytes;
    uint32_t *dims[] = {&m.dim0, &m.dim1, &m.dim2, &m.dim3, &m.dim4, &m.dim5, &m.dim6, &m.dim7};
    for (unsigned i = 0; i < t->rank && i < EK_MAX_RANK; i++) *dims[i] = t->dims[i];
    m.rank = t->rank;
    m.dtype = t->dtype;
    m.quantized = t->quantized;
    m.scale = t->scale;
    m.zero = t->zero;
    copy_text(m.name, sizeof m.name, t->name);
    attach(a, r, &ek_layout_tensor_info, &m);
}

static ek_status attach_op(agent_impl *a, ek_msg_result *r, uint32_t op)
{
    ek_op_info info;
    ek_msg_op_info m;
    ek_status s = ek_op(a->s, op, &info);
    if (s) return s;
    memset(&m, 0, sizeof m);
    m.entry = info.entry;
    m.version = info.version;
    m.exact = info.exact;
    if (!info.outputs || ek_op_tensor(a->s, op, info.inputs, &m.output)) m.output = 0xffffffffu;
    copy_text(m.type, sizeof m.type, info.type);
    copy_text(m.isa, sizeof m.isa, info.isa);
    copy_text(m.name, sizeof m.name, info.name);
    attach(a, r, &ek_layout_op_info, &m);
    return EK_OK;
}

static ek_status do_info(agent_impl *a, const ek_msg_cmd *c, ek_msg_result *r)
{
    ek_tensor t;
    ek_msg_entry_info e;
    const char *name;
    ek_status s = EK_OK;
    switch (c->index) {
    case EK_INFO_PACKAGE: attach_package(a, r); return EK_OK;
    case EK_INFO_OP: return attach_op(a, r, c->offset);
    case EK_INFO_ENTRY:
        s = ek_entry(a->s, c->entry, &name, &e.inputs, &e.outputs);
        if (s) return s;
        copy_text(e.name, sizeof e.name, name);
        attach(a, r, &ek_layout_entry_info, &e);
        return EK_OK;
    case EK_INFO_INPUT: s = ek_input(a->s, c->entry, c->offset, &t); break;
    case EK_INFO_OUTPUT: s = ek_output(a->s, c->entry, c->offset, &t); break;
    case EK_INFO_TENSOR: s = ek_tensor_at(a->s, c->offset, &t); break;
    default: r->code = EK_WIRE_CODE_ARGUMENT; return EK_OK;
    }
    if (!s) attach_tensor(a, r, &t);
    return s;
}

static ek_status do_set_input(agent_impl *a, const ek_msg_cmd *c, ek_msg_result *r)
{
    ek_tensor t;
    size_t before = 0;
    for (uint32_t i = 0; i < c->index; i++) {
        ek_status s = ek_input(a->s, c->entry, i, &t);
        if (s) return s;
        before += t.bytes;
    }
    ek_status s = ek_input(a->s, c->entry, c->index, &t);
    if (s) return s;
    r->total = (uint32_t)t.bytes;
    if (c->offset > t.bytes || c->data_len > t.bytes - c->offset) {
        r->code = EK_WIRE_CODE_ARGUMENT;
        return EK_OK;
    }
    uint8_t *to = t.data;
    if (a->copy) {
        if (a->copy_entry != c->entry) memset(a->copy, 0, a->copy_len);
        a->copy_entry = c->entry;
        to = a->copy + before;
    }
    if (c->data_len) memcpy(to + c->offset, c->data, c->data_len);
    r->offset = c->offset + c->data_len;
    return EK_OK;
}

static ek_status do_read(agent_impl *a, const ek_msg_cmd *c, ek_msg_result *r)
{
    ek_tensor t;
    ek_status s = c->op == EK_CMD_GET_OUTPUT ? ek_output(a->s, c->entry, c->index, &t)
                                             : ek_tensor_at(a->s, c->index, &t);
    if (s) return s;
    r->total = (uint32_t)t.bytes;
    r->offset = c->offset;
    if (!t.data || c->offset > t.bytes) {
        r->code = EK_WIRE_CODE_ARGUMENT;
        return EK_OK;
    }
    size_t n = t.bytes - c->offset, cap = a->body_max - ek_layout_result.size;
    if (n > c->count) n = c->count;
    if (n > cap) n = cap;
    r->value = ek_crc32(0, t.data, t.bytes);
    r->data = (const uint8_t *)t.data + c->offset;
    r->data_len = (uint32_t)n;
    return EK_OK;
}

/* A limit in time needs a clock that is time; elsewhere only the host's patience limits a run. */
static void set_deadline(agent_impl *a, uint32_t limit_ms)
{
    a->bench.deadline = 0;
    if (limit_ms && a->cfg.clock_kind == EK_CLOCK_TIME)
        a->bench.deadline = ek_agent_now(a) + limit_ms * (a->cfg.clock_hz / 1000);
}

static ek_status do_run(agent_impl *a, const ek_msg_cmd *c, ek_msg_result *r)
{
    int traced = c->count != 0;
    if (traced != a->traced_session) {
        ek_status s = open_session(a, traced);
        if (s) return s;
    }
    a->trace.stop_after = c->count;
    set_deadline(a, c->limit_ms);
    ek_status s = run_once(a, c->entry, &r->value);
    a->trace.stop_after = 0;
    a->bench.deadline = 0;
    return EK_CODE(s) == EK_ERR_CANCELLED && a->trace.stop ? EK_OK : s;
}

static uint16_t start_bench(agent_impl *a, const ek_msg_cmd *c)
{
    agent_bench *b = &a->bench;
    if (!c->count) return EK_WIRE_CODE_ARGUMENT;
    memset(b, 0, sizeof *b);
    b->phase = BENCH_DESCRIBE;
    b->entry = c->entry;
    b->run = c->run;
    b->count = c->count;
    b->warmup = c->offset;
    b->traced = a->trace.cap ? c->index : 0;
    set_deadline(a, c->limit_ms);
    return EK_WIRE_CODE_OK;
}

static ek_status do_verify(agent_impl *a, const ek_msg_cmd *c, ek_msg_result *r)
{
    const uint8_t *p;
    size_t n;
    if (!source(a, c->index, &p, &n)) {
        r->code = EK_WIRE_CODE_NO_PACKAGE;
        return EK_OK;
    }
    r->value = ek_crc32(0, p, n);
    return ek_verify(p, n, 0);
}

static void execute(agent_impl *a, const ek_msg_cmd *c, ek_msg_result *r)
{
    ek_status s = EK_OK;
    switch (c->op) {
    case EK_CMD_OPEN: r->code = open_package(a, c, &r->status); return;
    case EK_CMD_VERIFY: s = do_verify(a, c, r); break;
    case EK_CMD_INFO: s = do_info(a, c, r); break;
    case EK_CMD_SET_INPUT: s = do_set_input(a, c, r); break;
    case EK_CMD_RUN: s = do_run(a, c, r); break;
    case EK_CMD_GET_OUTPUT:
    case EK_CMD_GET_TENSOR: s = do_read(a, c, r); break;
    case EK_CMD_BENCH: r->code = start_bench(a, c); return;
    case EK_CMD_SELFTEST: s = ek_selftest(a->s); break;
    case EK_CMD_RESET: s = ek_reset(a->s); break;
    case EK_CMD_CLOSE: ek_agent_close(a); break;
    default: r->code = EK_WIRE_CODE_UNKNOWN; return;
    }
    r->status = s;
    if (s) r->code = EK_WIRE_CODE_STATUS;
}

/* Their answers have a tail, which is not kept, and giving them again is cheap and changes nothing. */
static int repeatable(uint16_t op)
{
    return op == EK_CMD_INFO || op == EK_CMD_GET_OUTPUT || op == EK_CMD_GET_TENSOR;
}

void ek_agent_command(agent_impl *a, const ek_msg_cmd *c)
{
    ek_msg_result r;
    if (c->ctr < a->last.ctr) return; /* a late repetition */
    if (c->ctr == a->last.ctr && !repeatable(c->op)) {
        ek_msg_result again = a->last;
        ek_agent_send(a, EK_MSG_RESULT, &ek_layout_result, &again);
        return;
    }
    memset(&r, 0, sizeof r);
    r.ctr = c->ctr;
    r.op = c->op;
    int needs_session = c->op != EK_CMD_OPEN && c->op != EK_CMD_VERIFY && c->op != EK_CMD_CANCEL &&
                        c->op != EK_CMD_CLOSE;
    if (c->op == EK_CMD_CANCEL) {
        if (ek_agent_benching(a)) a->bench.code = EK_WIRE_CODE_CANCELLED;
    } else if (ek_agent_benching(a) && c->op != EK_CMD_INFO) {
        r.code = EK_WIRE_CODE_BUSY;
    } else if (needs_session && !a->s) {
        r.code = EK_WIRE_CODE_NO_SESSION;
    } else {
        execute(a, c, &r);
    }
    answer(a, &r);
}

/* ---- benchmark --------------------------------------------------------------------------------- */

static void describe_channel(agent_impl *a, uint32_t i)
{
    ek_msg_channel_desc m;
    ek_agent_channel c = {EK_CHANNEL_LATENCY, EK_KIND_LATENCY, EK_QUALITY_MEASURED, EK_UNIT_TICKS,
                          "latency", "ek_run", "clock of the device"};
    memset(&m, 0, sizeof m);
    if (i) {
        a->cfg.describe(a->cfg.ctx, i - 1, &c);
    } else if (a->cfg.clock_kind == EK_CLOCK_NONE) {
        c.quality = EK_QUALITY_UNMEASURABLE;
        c.reason = "the device has no usable clock";
    } else if (a->cfg.clock_kind == EK_CLOCK_INSTRUCTIONS) {
        c.quality = EK_QUALITY_COUNTER;
        c.unit = EK_UNIT_INSTRUCTIONS;
        c.reason = "executed instructions, counted by the emulator";
    }
    m.run = a->bench.run;
    m.channel = c.channel;
    m.kind = c.kind;
    m.quality = c.quality;
    m.unit = c.unit;
    copy_text(m.name, sizeof m.name, c.name);
    copy_text(m.site, sizeof m.site, c.site);
    copy_text(m.reason, sizeof m.reason, c.reason);
    ek_agent_queue(a, EK_MSG_CHANNEL_DESC, &ek_layout_channel_desc, &m);
}

static uint8_t latency_quality(const agent_impl *a)
{
    return a->cfg.clock_kind == EK_CLOCK_INSTRUCTIONS ? EK_QUALITY_COUNTER : EK_QUALITY_MEASURED;
}

static void flush_block(agent_impl *a)
{
    if (!a->block) return;
    ek_msg_samples m = {a->bench.run, EK_CHANNEL_LATENCY, 8, latency_quality(a), a->block_first,
                        a->block, a->block_len};
    a->block = 0;
    ek_agent_queue(a, EK_MSG_SAMPLES, &ek_layout_samples, &m);
}

/* Adds a latency to the block that grows in the next free slot (the caller saw that there is one). */
static void add_sample(agent_impl *a, uint64_t ticks)
{
    if (!a->block) {
        a->block = ek_agent_slot(a) + ek_layout_samples.size;
        a->block_len = 0;
        a->block_first = a->bench.done;
        a->block_begin = ek_agent_now(a);
    }
    ek_put64(a->block + a->block_len, ticks);
    a->block_len += 8;
    int old = a->cfg.clock_kind == EK_CLOCK_TIME && ek_agent_now(a) - a->block_begin > a->cfg.clock_hz / 2;
    if (a->block_len + 8 > a->body_max - ek_layout_samples.size || old) flush_block(a);
}

static void mark(agent_impl *a, uint16_t kind)
{
    ek_msg_mark m = {a->bench.run, 1, kind, a->bench.done};
    ek_agent_queue(a, EK_MSG_MARK, &ek_layout_mark, &m);
}

static uint8_t *add_reading(uint8_t *p, uint16_t channel, uint8_t quality, uint8_t unit, uint64_t value)
{
    ek_msg_reading m = {channel, quality, unit, (int64_t)value};
    return p + ek_wire_put(&ek_layout_reading, &m, p, ek_layout_reading.size);
}

static void queue_readings(agent_impl *a, const uint8_t *p, const uint8_t *end)
{
    ek_msg_metric m = {a->bench.run, p, (uint32_t)(end - p)};
    ek_agent_queue(a, EK_MSG_METRIC, &ek_layout_metric, &m);
}

static void queue_sensors(agent_impl *a)
{
    ek_agent_metric r[8];
    unsigned n = a->cfg.metrics ? a->cfg.metrics(a->cfg.ctx, r, 8) : 0;
    uint8_t *start = ek_agent_slot(a) + ek_layout_metric.size, *p = start;
    for (unsigned i = 0; i < n && i < 8; i++)
        p = add_reading(p, r[i].channel, r[i].quality, r[i].unit, (uint64_t)r[i].value);
    if (p != start) queue_readings(a, start, p);
}

static void queue_figures(agent_impl *a)
{
    uint8_t *start = ek_agent_slot(a) + ek_layout_metric.size, *p = start;
    uint8_t quality = latency_quality(a);
    uint8_t unit = a->cfg.clock_kind == EK_CLOCK_INSTRUCTIONS ? EK_UNIT_INSTRUCTIONS : EK_UNIT_TICKS;
    if (a->cfg.clock_kind != EK_CLOCK_NONE) {
        p = add_reading(p, EK_CHANNEL_OPEN, quality, unit, a->bench.open_ticks);
        p = add_reading(p, EK_CHANNEL_FIRST, quality, unit, a->bench.first_ticks);
    }
    for (unsigned k = 0; k < EK_MEM_KINDS; k++)
        p = add_reading(p, (uint16_t)(EK_CHANNEL_MEM_SESSION + k), EK_QUALITY_MEASURED, EK_UNIT_BYTES,
                        a->mem_need[k]);
    if (a->cfg.stack_used)
        p = add_reading(p, EK_CHANNEL_STACK, EK_QUALITY_MEASURED, EK_UNIT_BYTES,
                        a->cfg.stack_used(a->cfg.ctx));
    queue_readings(a, start, p);
}

static void bench_failed(agent_impl *a, ek_status s)
{
    int late = EK_CODE(s) == EK_ERR_CANCELLED;
    a->bench.status = s;
    a->bench.code = late ? EK_WIRE_CODE_TIMEOUT : EK_WIRE_CODE_STATUS;
}

static void bench_open(agent_impl *a)
{
    agent_bench *b = &a->bench;
    uint64_t begin = ek_agent_now(a);
    ek_status s = open_session(a, 0);
    b->open_ticks = ek_agent_now(a) - begin;
    if (!s) s = run_once(a, b->entry, &b->first_ticks);
    if (s) bench_failed(a, s);
    b->phase = BENCH_WARMUP;
}

static void bench_warmup(agent_impl *a)
{
    agent_bench *b = &a->bench;
    uint64_t ticks;
    if (!b->warmup) {
        b->next_metric = ek_agent_now(a);
        b->phase = BENCH_MEASURE;
        mark(a, 1);
        return;
    }
    b->warmup--;
    ek_status s = run_once(a, b->entry, &ticks);
    if (s) bench_failed(a, s);
}

static void bench_measure(agent_impl *a)
{
    agent_bench *b = &a->bench;
    uint64_t ticks = 0;
    if (b->done == b->count) {
        if (a->block) {
            flush_block(a);
        } else {
            mark(a, 2);
            b->phase = BENCH_TRACE;
        }
        return;
    }
    int due = a->cfg.clock_kind == EK_CLOCK_TIME ? ek_agent_now(a) >= b->next_metric : b->done == 0;
    if (a->cfg.metrics && due && !a->block && !b->metric_pending) {
        b->next_metric = ek_agent_now(a) + a->cfg.clock_hz / 2;
        b->metric_pending = 1; /* at most one between two blocks, so a slow sensor cannot stop us */
        queue_sensors(a);
        return;
    }
    ek_status s = run_once(a, b->entry, &ticks);
    if (s) {
        bench_failed(a, s);
        return;
    }
    if (a->cfg.clock_kind != EK_CLOCK_NONE) add_sample(a, ticks);
    if (!a->block) b->metric_pending = 0;
    b->done++;
}

static void bench_trace(agent_impl *a)
{
    agent_bench *b = &a->bench;
    uint64_t ticks;
    if (b->traces_done == b->traced) {
        b->phase = BENCH_FIGURES;
        return;
    }
    ek_status s = a->traced_session ? EK_OK : open_session(a, 1);
    if (!s) s = run_once(a, b->entry, &ticks);
    if (s) {
        bench_failed(a, s);
        return;
    }
    b->emitted = 0;
    b->phase = BENCH_EMIT;
}

static void bench_emit(agent_impl *a)
{
    agent_bench *b = &a->bench;
    uint32_t item = ek_layout_op_time.size, left = a->trace.len - b->emitted;
    uint32_t fit = (a->body_max - ek_layout_op_trace.size) / item, n = left < fit ? left : fit;
    ek_msg_op_trace m = {b->run, b->traces_done, a->trace.items + (size_t)b->emitted * item, n * item};
    ek_agent_queue(a, EK_MSG_OP_TRACE, &ek_layout_op_trace, &m);
    b->emitted += n;
    if (b->emitted < a->trace.len) return;
    b->traces_done++;
    b->phase = BENCH_TRACE;
}

static void bench_end(agent_impl *a)
{
    const agent_bench *b = &a->bench;
    ek_msg_run_end m = {b->run, b->code, 0, b->status, b->done, b->traces_done, 0, 0};
    ek_agent_queue(a, EK_MSG_RUN_END, &ek_layout_run_end, &m);
    memset(&a->bench, 0, sizeof a->bench);
}

int ek_agent_bench_step(agent_impl *a)
{
    agent_bench *b = &a->bench;
    /* every step queues one frame at most: without a free slot the benchmark waits, nothing is lost */
    if (b->phase == BENCH_NONE) return 0;
    if (!ek_agent_room(a)) {
        if (!b->held) b->held = ek_agent_now(a) | 1;
        return 0;
    }
    if (b->held && b->deadline) b->deadline += ek_agent_now(a) - b->held;
    b->held = 0;
    if (b->code && b->phase < BENCH_FIGURES) {
        if (a->block)
            flush_block(a);
        else
            b->phase = BENCH_END;
        return 1;
    }
    switch (b->phase) {
    case BENCH_DESCRIBE:
        describe_channel(a, b->described++);
        if (b->described == a->cfg.channels + 1) b->phase = BENCH_OPEN;
        break;
    case BENCH_OPEN: bench_open(a); break;
    case BENCH_WARMUP: bench_warmup(a); break;
    case BENCH_MEASURE: bench_measure(a); break;
    case BENCH_TRACE: bench_trace(a); break;
    case BENCH_EMIT: bench_emit(a); break;
    case BENCH_FIGURES: queue_figures(a), b->phase = BENCH_END; break;
    default: bench_end(a);
    }
    return 1;
}
