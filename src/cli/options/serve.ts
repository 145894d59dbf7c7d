/** Options of the embedded server. @module */
import { type OptionSpec, option } from './option.ts'

/** Where content is kept. */
export const STORAGE: readonly OptionSpec[] = [
  option('--storage <kind>', 'how content travels', { choices: ['classic', 's3'], fallback: 'classic' }),
  option('--s3-endpoint <url>', 'with --storage s3: keep content in this object store instead of --data'),
  option('--s3-bucket <name>', 'its bucket'),
  option('--s3-region <name>', 'its region (default us-east-1)'),
  option('--s3-access-key-file <file>', 'file with the access key (or SEALSYNC_S3_ACCESS_KEY)'),
  option('--s3-secret-key-file <file>', 'file with the secret key (or SEALSYNC_S3_SECRET_KEY)'),
  option('--s3-path-style', 'the bucket goes into the path, not into the host name'),
]

/** What the file of a server may say. */
export const SERVER_OPTIONS: readonly OptionSpec[] = [
  option('--data <dir>', 'directory of everything it stores'),
  option('--port <n>', 'port (default: a free one)'),
  option('--host <host>', 'address to listen on (default 127.0.0.1); beyond loopback only with TLS or --trust-proxy'),
  option('--allow-host <name...>', 'further names that clients may use for it'),
  option('--tls-cert <file>', 'PEM certificate; read again on SIGHUP'),
  option('--tls-key <file>', 'PEM private key'),
  option('--trust-proxy <address...>', 'address or network of a proxy in front, whose X-Forwarded headers count'),
  option('--access-log <file>', 'append a line of JSON for each request; opened anew on SIGHUP'),
  option('--metrics-port <n>', 'port of 127.0.0.1 with figures for Prometheus, at /metrics'),
  option('--max-requests <n>', 'most requests per second of one user, or of one address without a login'),
  option('--drain <time>', 'how long requests under way are waited for when it stops (default 10s)'),
  option('--faults <file>', 'JSON plan of faults to inject, for tests'),
  ...STORAGE,
]
