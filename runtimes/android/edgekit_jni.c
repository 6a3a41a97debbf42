/* Native side of EdgeKit.kt: a session with its package, memories and threads behind one handle. */
#define _POSIX_C_SOURCE 200809L
#include <jni.h>
#include <stdlib.h>
#include "edgekit.h"
#include "host.h"

#define ALIGN 64u
#define JNI(type, name) JNIEXPORT type JNICALL Java_dev_edgekit_EdgeKit_native##name
#define SELF JNIEnv *env, jobject self

typedef struct model {
    ek_session *session;
    ek_host *host;
    void *package, *mem[EK_MEM_KINDS];
} model;

static model *of(jlong handle) { return (model *)(intptr_t)handle; }

static void *room(size_t bytes)
{
    void *p = 0;
    return posix_memalign(&p, ALIGN, bytes ? bytes : 1) ? 0 : p;
}

static void refuse(JNIEnv *env, const char *text)
{
    jclass kind = (*env)->FindClass(env, "java/lang/IllegalStateException");
    if (kind)
        (*env)->ThrowNew(env, kind, text);
}

static void release(model *m)
{
    if (!m)
        return;
    for (int i = 0; i < EK_MEM_KINDS; i++)
        free(m->mem[i]);
    if (m->host)
        ek_host_destroy(m->host);
    free(m->package);
    free(m);
}

/* 0 and *e, or 1 with *e EK_OK where memory cannot be had */
static int start(model *m, size_t length, unsigned threads, ek_status *e)
{
    ek_config c = EK_CONFIG_INIT;
    *e = ek_arena_size(m->package, length, threads, c.mem_len);
    if (*e != EK_OK)
        return 0;
    m->host = ek_host_create(threads, 0);
    if (!m->host)
        return 1;
    ek_host_attach(m->host, &c);
    c.package = m->package;
    c.package_len = length;
    for (int i = 0; i < EK_MEM_KINDS; i++) {
        m->mem[i] = c.mem[i] = room(c.mem_len[i]);
        if (!c.mem[i])
            return 1;
    }
    *e = ek_open(&m->session, &c);
    return 0;
}

JNI(jlong, Open)(SELF, jbyteArray bytes, jint threads)
{
    (void)self;
    jsize length = (*env)->GetArrayLength(env, bytes);
    model *m = (model *)calloc(1, sizeof *m);
    ek_status e = EK_OK;
    int full = !m || !(m->package = room((size_t)length));
    if (!full) {
        (*env)->GetByteArrayRegion(env, bytes, 0, length, (jbyte *)m->package);
        full = start(m, (size_t)length, threads > 0 ? (unsigned)threads : 1, &e);
    }
    if (!full && e == EK_OK)
        return (jlong)(intptr_t)m;
    release(m);
    refuse(env, full ? "memory: there is not enough for this package" : ek_strerror(e));
    return 0;
}

static jobject tensor(JNIEnv *env, ek_status e, const ek_tensor *t)
{
    if (e == EK_OK)
        return (*env)->NewDirectByteBuffer(env, t->data, (jlong)t->bytes);
    refuse(env, ek_strerror(e));
    return 0;
}

JNI(jobject, Input)(SELF, jlong handle, jint entry, jint i)
{
    (void)self;
    ek_tensor t;
    return tensor(env, ek_input(of(handle)->session, (unsigned)entry, (unsigned)i, &t), &t);
}

JNI(jobject, Output)(SELF, jlong handle, jint entry, jint i)
{
    (void)self;
    ek_tensor t;
    return tensor(env, ek_output(of(handle)->session, (unsigned)entry, (unsigned)i, &t), &t);
}

JNI(void, Run)(SELF, jlong handle, jint entry)
{
    (void)self;
    ek_status e = ek_run(of(handle)->session, (unsigned)entry);
    if (e != EK_OK)
        refuse(env, ek_strerror(e));
}

JNI(void, SelfTest)(SELF, jlong handle)
{
    (void)self;
    ek_status e = ek_selftest(of(handle)->session);
    if (e != EK_OK)
        refuse(env, ek_strerror(e));
}

JNI(void, Close)(SELF, jlong handle)
{
    (void)env, (void)self;
    release(of(handle));
}
