/** Resident memory while 16 GiB (BENCH_GIB) pass through one encryptor and one decryptor, in a process that does nothing else. */
import { createFileDecryptor, createFileEncryptor, FileKey } from '../../crypto/index.ts'

const MiB = 1024 * 1024
const TOTAL = Number(process.env.BENCH_GIB ?? 16) * 1024 * MiB
const source = new Uint8Array(MiB).fill(5)
const [cipher, plain] = [new Uint8Array(MiB), new Uint8Array(MiB)]
const encryptor = createFileEncryptor()
const decryptor = createFileDecryptor(new FileKey(new Uint8Array(32).fill(1), new Uint8Array(12), new Uint8Array(16)))
await new Promise((resolve) => setTimeout(resolve, 20)) // any program has waited for something before it encrypts
const marks: string[] = []
let peak = 0
for (let done = 0; done < TOTAL; done += MiB) {
  encryptor.updateInto(source, cipher, 0)
  decryptor.updateInto(cipher, plain, 0)
  const rss = process.memoryUsage.rss()
  peak = Math.max(peak, rss)
  if (done % (64 * MiB) === 0) await new Promise((resolve) => setImmediate(resolve)) // as a program with files to read would
  if (done % (4 * 1024 * MiB) === 0) marks.push((rss / MiB).toFixed(0))
}
process.stdout.write(
  `\nnode ${process.version}: ${TOTAL / 1024 / MiB} GiB encrypted and decrypted, resident MiB at every 4 GiB: ${marks.join(', ')}; peak ${(peak / MiB).toFixed(0)} (goal < 80 MB)\n`,
)
