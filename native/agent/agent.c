/* Link, session, authentication, queue of unacknowledged frames, and upload. */
#include "agent_impl.h"
#include <string.h>

static agent_impl *impl(ek_agent *a) { return (agent_impl *)(void *)a->opaque; }

uint64_t ek_agent_now(const agent_impl *a) { return a->cfg.clock ? a->cfg.clock(a->cfg.ctx) : 0; }

/* ---- sending ---------------------------------------------------------------------------------- */

static void put_bytes(agent_impl *a, const uint8_t *p, size_t n)
{
    if (!a->down && n && a->cfg.tx(a->cfg.ctx, p, n)) a->down = 1;
}

/* `p` has four free bytes before it: the length prefix goes out in one write with the frame. */
static void put_frame(agent_impl *a, uint8_t *p, size_t n)
{
    if (a->cfg.framing == EK_FRAMING_LENGTH) {
        ek_put16(p - 2, (uint16_t)n);
        put_bytes(a, p - 2, n + 2);
        return;
    }
    int zero = 1;
    while (n || zero) {
        size_t len = ek_cobs_block(p, n, &zero);
        uint8_t code = (uint8_t)(len + 1);
        put_bytes(a, &code, 1);
        put_bytes(a, p, len);
        p += len + (zero ? 1 : 0);
        n -= len + (zero ? 1 : 0);
    }
    put_bytes(a, (const uint8_t *)"", 1);
}

uint8_t *ek_agent_body(agent_impl *a) { return a->tx + 4 + EK_FRAME_HEADER; }

void ek_agent_send(agent_impl *a, uint8_t type, const ek_wire_layout *l, const void *m)
{
    ek_frame f = {type, 0, EK_STREAM_CONTROL, 0, ek_agent_now(a), 0, 0};
    f.len = (uint32_t)ek_wire_put(l, m, ek_agent_body(a), a->cfg.max_body);
    put_frame(a, a->tx + 4, ek_frame_seal(a->tx + 4, &f));
}

static void send_error(agent_impl *a, uint16_t code, uint8_t type)
{
    ek_msg_error e = {code, type, 0, 0};
    ek_agent_send(a, EK_MSG_ERROR, &ek_layout_error, &e);
}

/* ---- queue ------------------------------------------------------------------------------------
 * A slot: u16 length of the sealed frame, two bytes for the length prefix, frame. */

static uint8_t *slot_of(const agent_impl *a, uint32_t seq)
{
    return a->slots + (seq % a->cfg.queue_frames) * a->slot_bytes;
}

uint32_t ek_agent_room(const agent_impl *a)
{
    return a->cfg.queue_frames - (a->queue_next - a->queue_first);
}

uint8_t *ek_agent_slot(agent_impl *a) { return slot_of(a, a->queue_next) + 4 + EK_FRAME_HEADER; }

static void send_slot(agent_impl *a, uint32_t seq)
{
    uint8_t *p = slot_of(a, seq);
    size_t n = ek_get16(p); /* put_frame overwrites it with the same number */
    if (a->link == LINK_READY) put_frame(a, p + 4, n);
    ek_put16(p, (uint16_t)n);
}

void ek_agent_queue(agent_impl *a, uint8_t type, const ek_wire_layout *l, const void *m)
{
    ek_frame f = {type, 0, EK_STREAM_RUN, a->queue_next, ek_agent_now(a), 0, 0};
    uint8_t *p = slot_of(a, a->queue_next);
    f.len = (uint32_t)ek_wire_put(l, m, p + 4 + EK_FRAME_HEADER, a->cfg.max_body);
    ek_put16(p, (uint16_t)ek_frame_seal(p + 4, &f));
    send_slot(a, a->queue_next++);
}

static void on_ack(agent_impl *a, const ek_msg_ack *m)
{
    if (m->stream != EK_STREAM_RUN) return;
    uint32_t done = m->seq + 1 - a->queue_first, have = a->queue_next - a->queue_first;
    if (done <= have) a->queue_first += done; /* an older or a foreign number changes nothing */
    if (!(m->flags & EK_ACK_RESEND)) return;
    for (uint32_t seq = a->queue_first; seq != a->queue_next; seq++) {
        uint32_t bit = seq - m->seq - 1;
        if (bit >= 32 || !(m->bitmap >> bit & 1)) send_slot(a, seq);
    }
}

/* ---- session ---------------------------------------------------------------------------------- */

static void derive(const agent_impl *a, uint8_t out[32], const char *label, const uint8_t *nonce)
{
    ek_sha256 s;
    ek_sha256_begin(&s);
    ek_sha256_add(&s, label, 5);
    ek_sha256_add(&s, a->cfg.entropy, a->cfg.entropy_len);
    ek_sha256_add(&s, nonce, 16);
    ek_sha256_add(&s, &a->hellos, sizeof a->hellos);
    ek_sha256_end(&s, out);
}

static void make_uid(const agent_impl *a, uint8_t out[16])
{
    uint8_t digest[32];
    if (a->cfg.uid) {
        memcpy(out, a->cfg.uid, 16);
        return;
    }
    size_t n = 0;
    while (a->cfg.name && n < 31 && a->cfg.name[n]) n++;
    ek_hmac_sha256(digest, (const uint8_t *)"edgekit uid", 11, a->cfg.name, n, 0, 0);
    memcpy(out, digest, 16);
}

static void set_text(char *to, size_t cap, const char *from)
{
    size_t n = 0;
    memset(to, 0, cap);
    while (from && n + 1 < cap && from[n]) to[n] = from[n], n++;
}

static void send_hello_ack(agent_impl *a)
{
    ek_msg_hello_ack m;
    memset(&m, 0, sizeof m);
    m.boot = a->boot;
    memcpy(m.nonce, a->nonce, 16);
    make_uid(a, m.uid);
    m.clock_hz = a->cfg.clock_kind == EK_CLOCK_TIME ? a->cfg.clock_hz : 0;
    m.max_body = a->body_max;
    m.window = a->cfg.rx_window ? a->cfg.rx_window : a->body_max;
    m.caps = (a->cfg.resident ? EK_CAP_RESIDENT : 0) |
             (a->cfg.ram_len || a->cfg.store_begin ? EK_CAP_UPLOAD : 0) |
             (a->cfg.emulated || a->cfg.clock_kind == EK_CLOCK_INSTRUCTIONS ? EK_CAP_EMULATED : 0);
    m.clock_kind = a->cfg.clock_kind;
    m.auth = a->cfg.token != 0;
    m.agent = a->cfg.agent_kind;
    set_text(m.name, sizeof m.name, a->cfg.name);
    set_text(m.firmware, sizeof m.firmware, a->cfg.firmware);
    ek_agent_send(a, EK_MSG_HELLO_ACK, &ek_layout_hello_ack, &m);
    ek_sha256 s;
    ek_sha256_begin(&s);
    ek_sha256_add(&s, a->hello, a->hello_len);
    ek_sha256_add(&s, ek_agent_body(a), ek_layout_hello_ack.size);
    ek_sha256_end(&s, a->digest);
}

static void ready(agent_impl *a)
{
    a->link = LINK_READY;
    for (uint32_t seq = a->queue_first; seq != a->queue_next; seq++) send_slot(a, seq);
}

static void on_hello(agent_impl *a, const ek_frame *f)
{
    ek_msg_hello m;
    if (f->len > sizeof a->hello || ek_wire_get(&ek_layout_hello, &m, f->body, f->len)) return;
    if (m.max_body < EK_WIRE_MIN_BODY) {
        send_error(a, EK_WIRE_CODE_ARGUMENT, f->type);
        return;
    }
    if (a->link != LINK_NEW && f->len == a->hello_len && !memcmp(f->body, a->hello, f->len)) {
        send_hello_ack(a); /* a repetition: the same answer, nothing changes */
        return;
    }
    uint8_t digest[32];
    if (!a->hellos) {
        derive(a, digest, "boot ", m.nonce);
        memcpy(&a->boot, digest, 8);
    }
    a->hellos++;
    derive(a, digest, "nonce", m.nonce);
    memcpy(a->nonce, digest, 16);
    memcpy(a->hello, f->body, f->len);
    a->hello_len = (uint8_t)f->len;
    a->body_max = m.max_body < a->cfg.max_body ? m.max_body : a->cfg.max_body;
    if (m.session != a->session) memset(&a->last, 0, sizeof a->last);
    a->session = m.session;
    a->link = LINK_HELLO;
    send_hello_ack(a);
    if (!a->cfg.token) ready(a);
}

static void on_auth(agent_impl *a, const ek_frame *f)
{
    ek_msg_auth m;
    uint8_t expect[32];
    if (a->link == LINK_NEW || !a->cfg.token || ek_wire_get(&ek_layout_auth, &m, f->body, f->len)) return;
    ek_hmac_sha256(expect, a->cfg.token, a->cfg.token_len, "EKP1 host", 9, a->digest, 32);
    if (!ek_same(expect, m.proof, 32)) {
        a->link = LINK_NEW;
        send_error(a, EK_WIRE_CODE_AUTH, f->type);
        return;
    }
    ek_msg_auth_ack r;
    ek_hmac_sha256(r.proof, a->cfg.token, a->cfg.token_len, "EKP1 device", 11, a->digest, 32);
    ek_agent_send(a, EK_MSG_AUTH_ACK, &ek_layout_auth_ack, &r);
    if (a->link != LINK_READY) ready(a);
}

static void on_sync(agent_impl *a, const ek_frame *f)
{
    ek_msg_sync m;
    if (ek_wire_get(&ek_layout_sync, &m, f->body, f->len)) return;
    ek_msg_sync_reply r = {m.t1, ek_agent_now(a), 0};
    r.t3 = ek_agent_now(a);
    ek_agent_send(a, EK_MSG_SYNC_REPLY, &ek_layout_sync_reply, &r);
}

/* ---- upload ----------------------------------------------------------------------------------- */

static void send_xfer_ack(agent_impl *a, uint32_t id, uint16_t code)
{
    ek_msg_xfer_ack m = {id, code, a->package_done, a->offset, 0, 0, 0};
    m.window = a->cfg.rx_window ? a->cfg.rx_window : a->body_max;
    ek_agent_send(a, EK_MSG_XFER_ACK, &ek_layout_xfer_ack, &m);
}

static void drop_package(agent_impl *a)
{
    a->package = 0;
    a->package_len = a->offset = 0;
    a->package_done = 0;
}

/* Memory for an uploaded package; in ram it takes the front, sessions what is left behind it. */
static uint8_t *place_package(agent_impl *a, uint64_t bytes)
{
    if (a->cfg.store_begin) return a->cfg.store_begin(a->cfg.ctx, bytes);
    uintptr_t at = ((uintptr_t)a->cfg.ram + EK_ALIGN_PACKAGE - 1) & ~(uintptr_t)(EK_ALIGN_PACKAGE - 1);
    size_t lost = at - (uintptr_t)a->cfg.ram;
    if (!a->cfg.ram || lost > a->cfg.ram_len || bytes > a->cfg.ram_len - lost) return 0;
    return (uint8_t *)a->cfg.ram + lost;
}

static void on_xfer_begin(agent_impl *a, const ek_frame *f)
{
    ek_msg_xfer_begin m;
    if (ek_wire_get(&ek_layout_xfer_begin, &m, f->body, f->len)) return;
    uint32_t id = ek_get32(m.sha256);
    if (a->package && a->package_len == m.size && !memcmp(a->package_sha, m.sha256, 32)) {
        send_xfer_ack(a, id, EK_WIRE_CODE_OK); /* goes on where it stopped */
        return;
    }
    if (ek_agent_benching(a)) {
        send_xfer_ack(a, id, EK_WIRE_CODE_BUSY);
        return;
    }
    ek_agent_close(a);
    drop_package(a);
    a->package = m.kind || m.size < 64 ? 0 : place_package(a, m.size);
    if (a->package) {
        a->package_len = m.size;
        memcpy(a->package_sha, m.sha256, 32);
        ek_sha256_begin(&a->sha);
    }
    send_xfer_ack(a, id, a->package ? EK_WIRE_CODE_OK : EK_WIRE_CODE_NO_SPACE);
}

static void on_xfer_data(agent_impl *a, const ek_frame *f)
{
    ek_msg_xfer_data m;
    if (ek_wire_get(&ek_layout_xfer_data, &m, f->body, f->len)) return;
    if (!a->package || m.id != ek_get32(a->package_sha)) {
        a->package_done ? send_xfer_ack(a, m.id, EK_WIRE_CODE_OK) : send_xfer_ack(a, m.id, EK_WIRE_CODE_NO_PACKAGE);
        return;
    }
    if (!a->package_done && m.offset == a->offset && m.data_len <= a->package_len - a->offset) {
        memcpy(a->package + a->offset, m.data, m.data_len);
        ek_sha256_add(&a->sha, m.data, m.data_len);
        a->offset += m.data_len;
    }
    send_xfer_ack(a, m.id, EK_WIRE_CODE_OK);
}

static void on_xfer_end(agent_impl *a, const ek_frame *f)
{
    ek_msg_xfer_end m;
    uint8_t digest[32];
    if (ek_wire_get(&ek_layout_xfer_end, &m, f->body, f->len)) return;
    if (!a->package || m.id != ek_get32(a->package_sha)) {
        send_xfer_ack(a, m.id, EK_WIRE_CODE_NO_PACKAGE);
        return;
    }
    uint16_t code = EK_WIRE_CODE_OK;
    if (!a->package_done && a->offset == a->package_len) {
        ek_sha256_end(&a->sha, digest);
        a->package_done = !memcmp(digest, a->package_sha, 32);
        if (!a->package_done) {
            drop_package(a);
            code = EK_WIRE_CODE_HASH;
        }
    }
    send_xfer_ack(a, m.id, code);
}

/* ---- receiving -------------------------------------------------------------------------------- */

static void dispatch(agent_impl *a, const ek_frame *f)
{
    ek_msg_ack ack;
    ek_msg_cmd cmd;
    switch (f->type) {
    case EK_MSG_HELLO: on_hello(a, f); return;
    case EK_MSG_AUTH: on_auth(a, f); return;
    default: break;
    }
    if (a->link != LINK_READY) {
        if (f->type != EK_MSG_BYE) send_error(a, EK_WIRE_CODE_AUTH, f->type);
        return;
    }
    switch (f->type) {
    case EK_MSG_SYNC: on_sync(a, f); break;
    case EK_MSG_ACK:
        if (!ek_wire_get(&ek_layout_ack, &ack, f->body, f->len)) on_ack(a, &ack);
        break;
    case EK_MSG_CMD:
        if (!ek_wire_get(&ek_layout_cmd, &cmd, f->body, f->len)) ek_agent_command(a, &cmd);
        break;
    case EK_MSG_XFER_BEGIN: on_xfer_begin(a, f); break;
    case EK_MSG_XFER_DATA: on_xfer_data(a, f); break;
    case EK_MSG_XFER_END: on_xfer_end(a, f); break;
    case EK_MSG_BYE: a->link = LINK_NEW; break;
    default: break; /* unknown types are skipped */
    }
}

/* Handles the first complete frame in rx; bytes it took, 0 if there is none yet. */
static size_t take_cobs(agent_impl *a)
{
    ek_frame f;
    size_t end = 0;
    while (end < a->rx_len && a->rx[end]) end++;
    if (end == a->rx_len) {
        if (end < a->rx_cap) return 0;
        a->skip = 1; /* longer than any frame: drop up to the next zero */
        return end;
    }
    if (!a->skip && end) {
        size_t n = ek_cobs_decode(a->rx, end);
        if (n != EK_CODEC_BAD && !ek_frame_parse(&f, a->rx, n)) dispatch(a, &f);
    }
    a->skip = 0;
    return end + 1;
}

static size_t take_length(agent_impl *a)
{
    ek_frame f;
    if (a->rx_len < 2) return 0;
    size_t n = ek_get16(a->rx);
    if (n < EK_WIRE_OVERHEAD || n + 2 > a->rx_cap) {
        a->down = 1; /* the byte stream is out of step: only a new link helps */
        return a->rx_len;
    }
    if (a->rx_len < n + 2) return 0;
    if (!ek_frame_parse(&f, a->rx + 2, n)) dispatch(a, &f);
    return n + 2;
}

int ek_agent_step(ek_agent *agent)
{
    agent_impl *a = impl(agent);
    if (a->down) return EK_AGENT_DOWN;
    a->rx_len += a->cfg.rx(a->cfg.ctx, a->rx + a->rx_len, a->rx_cap - a->rx_len);
    size_t used = 0, total = 0;
    do {
        used = a->cfg.framing == EK_FRAMING_LENGTH ? take_length(a) : take_cobs(a);
        memmove(a->rx, a->rx + used, a->rx_len - used);
        a->rx_len -= used;
        total += used;
    } while (used && !a->down);
    int worked = ek_agent_bench_step(a);
    if (a->down) return EK_AGENT_DOWN;
    return worked || total ? EK_AGENT_BUSY : EK_AGENT_IDLE;
}

void ek_agent_link_lost(ek_agent *agent)
{
    agent_impl *a = impl(agent);
    a->link = LINK_NEW;
    a->down = a->skip = 0;
    a->rx_len = 0;
}

int ek_agent_ready(const ek_agent *a)
{
    return ((const agent_impl *)(const void *)a->opaque)->link == LINK_READY;
}

int ek_agent_init(ek_agent *agent, const ek_agent_config *c)
{
    agent_impl *a = impl(agent);
    memset(agent, 0, sizeof *agent);
    if (!c || c->size != sizeof *c || !c->rx || !c->tx || !c->work) return EK_AGENT_BAD_CONFIG;
    if (c->framing > EK_FRAMING_LENGTH || c->clock_kind > EK_CLOCK_TICKS) return EK_AGENT_BAD_CONFIG;
    if (c->max_body < EK_WIRE_MIN_BODY || c->max_body > EK_WIRE_MAX_BODY) return EK_AGENT_BAD_CONFIG;
    if (c->queue_frames < 2 || c->queue_frames > 32) return EK_AGENT_BAD_CONFIG;
    if (c->work_len < EK_AGENT_WORK_BYTES(c->max_body, c->queue_frames)) return EK_AGENT_BAD_CONFIG;
    if (((uintptr_t)c->work & 7) || ((uintptr_t)c->ram & 15)) return EK_AGENT_BAD_CONFIG;
    if (c->clock_kind != EK_CLOCK_NONE && !c->clock) return EK_AGENT_BAD_CONFIG;
    if (c->clock_kind == EK_CLOCK_TIME && (!c->clock_hz || c->emulated)) return EK_AGENT_BAD_CONFIG;
    if (c->token && (!c->token_len || c->entropy_len < 8)) return EK_AGENT_BAD_CONFIG;
    if ((c->entropy_len && !c->entropy) || (c->channels && !c->describe)) return EK_AGENT_BAD_CONFIG;
    a->cfg = *c;
    a->body_max = c->max_body;
    a->rx_cap = EK_AGENT_FRAME_BYTES(c->max_body);
    a->slot_bytes = (size_t)c->max_body + 24u;
    a->rx = c->work;
    a->tx = a->rx + a->rx_cap;
    a->slots = a->tx + a->slot_bytes;
    a->queue_first = a->queue_next = 1;
    return EK_AGENT_OK;
}
