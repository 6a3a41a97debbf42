package dev.edgekit

import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * One session of a package. Not thread-safe: one thread at a time. Close it.
 *
 *     val bytes = assets.open("model.ekp").readBytes()
 *     EdgeKit(bytes, threads = 4).use { model ->
 *         model.input(0).asFloatBuffer().put(pixels)
 *         model.run()
 *         val scores = FloatArray(10).also { model.output(0).asFloatBuffer().get(it) }
 *     }
 *
 * Throws IllegalStateException with the runtime's sentence where something is refused.
 */
class EdgeKit(packageBytes: ByteArray, threads: Int = 1) : AutoCloseable {
    private var handle = nativeOpen(packageBytes, threads)

    /** Memory of input [i], to be written before [run]; valid until [close]. */
    fun input(i: Int, entry: Int = 0): ByteBuffer =
        nativeInput(alive(), entry, i).order(ByteOrder.nativeOrder())

    /** Memory of output [i]; its content is valid until the next [run]. */
    fun output(i: Int, entry: Int = 0): ByteBuffer =
        nativeOutput(alive(), entry, i).order(ByteOrder.nativeOrder())

    fun run(entry: Int = 0) = nativeRun(alive(), entry)

    /** Runs the golden vectors of the package on this device. Overwrites inputs. */
    fun selfTest() = nativeSelfTest(alive())

    override fun close() {
        if (handle != 0L) nativeClose(handle)
        handle = 0L
    }

    private fun alive(): Long {
        check(handle != 0L) { "closed" }
        return handle
    }

    private external fun nativeOpen(packageBytes: ByteArray, threads: Int): Long
    private external fun nativeInput(handle: Long, entry: Int, i: Int): ByteBuffer
    private external fun nativeOutput(handle: Long, entry: Int, i: Int): ByteBuffer
    private external fun nativeRun(handle: Long, entry: Int)
    private external fun nativeSelfTest(handle: Long)
    private external fun nativeClose(handle: Long)

    private companion object {
        init {
            System.loadLibrary("edgekit_jni")
        }
    }
}
