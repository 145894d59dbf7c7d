/*
 * A shim between a program and the C library (LD_PRELOAD, Linux): it numbers the calls that change or read files, or that talk to
 * sockets, and lets one of them fail, stop halfway, or be the last thing that the process did. Only calls of the kinds that are asked
 * for are numbered, and of those to files only the ones below one of the roots. See shim.ts for how tests use it.
 *
 *   SHIM_KINDS=rename,write,...  which calls; the kinds are the first argument of RULE below
 *   SHIM_ROOTS=/a:/b             absolute directories; sockets have no place and always count
 *   SHIM_LOG=FILE                gets one line for each numbered call: number, kind, path
 *   SHIM_AT=N SHIM_TIMES=K       the calls that are meddled with: K from the Nth on (default 1; 0: all that follow)
 *   SHIM_DO=fail|short|kill-before|kill-after
 *   SHIM_ERRNO=E                 for fail
 *   SHIM_NO_LINKS=1              files below the roots get no second names; such a call is not numbered
 *   SHIM_TIME_STEP=S             times that are set below the roots are rounded down to S seconds, as some file systems do
 *
 * A process that does one thing after another says by itself what comes next: it opens "/dev/null/shim" with such lines behind it, which
 * start the numbers again. Without any, nothing is numbered.
 *
 * Programs that the process starts are left alone.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum verdict { GO_ON, FAIL, SHORT, KILL_AFTER, NO_LINK };
enum { PATH_BYTES = 8192 };

static const char *kinds, *roots;
static char *action = "";
static long first = 0, times = 1, seen = 0, step = 0, no_links = 0;
static int error_number = EIO, log_fd = -1;

/* A value out of the lines of a plan, or of the environment, which others need not see. */
static char *keep(const char *lines, const char *name) {
  if (!lines) {
    const char *value = getenv(name);
    char *copy = value ? strdup(value) : NULL;
    unsetenv(name);
    return copy;
  }
  size_t length = strlen(name);
  for (const char *at = strchr(lines, '\n'); at; at = strchr(at, '\n')) {
    if (!strncmp(++at, name, length) && at[length] == '=') return strndup(at + length + 1, strcspn(at, "\n") - length - 1);
  }
  return NULL;
}

static long number(const char *lines, const char *name, long otherwise) {
  char *value = keep(lines, name);
  return value ? atol(value) : otherwise;
}

static void take_plan(const char *lines) {
  if (log_fd >= 0) syscall(SYS_close, log_fd);
  kinds = keep(lines, "SHIM_KINDS");
  roots = keep(lines, "SHIM_ROOTS");
  char *what = keep(lines, "SHIM_DO");
  action = what ? what : "";
  first = number(lines, "SHIM_AT", 0);
  times = number(lines, "SHIM_TIMES", 1);
  step = number(lines, "SHIM_TIME_STEP", 0);
  no_links = number(lines, "SHIM_NO_LINKS", 0);
  error_number = number(lines, "SHIM_ERRNO", EIO);
  seen = 0;
  char *log = keep(lines, "SHIM_LOG");
  log_fd = log ? syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
}

__attribute__((constructor)) static void start(void) {
  unsetenv("LD_PRELOAD");
  take_plan(NULL);
}

static const char *const CONTROL = "/dev/null/shim";
static int is_plan(const char *path) { return path && !strncmp(path, CONTROL, strlen(CONTROL)); }

/* True when `list`, separated by `by`, has `word`; with `by` a colon it is enough to be below one of the list. */
static int has(const char *list, const char *word, char by) {
  const char separators[] = {by, 0};
  for (const char *at = list; at && *at;) {
    size_t length = strcspn(at, separators);
    char after = strncmp(word, at, length) ? 'x' : word[length];
    if (length && (after == 0 || (by == ':' && after == '/'))) return 1;
    at += length + (at[length] == by);
  }
  return 0;
}

static ssize_t path_of_fd(int fd, char *buffer) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, buffer, PATH_BYTES - 1);
  if (length >= 0) buffer[length] = 0;
  return length;
}

/* The absolute path that a call means; 0 when there is none. */
static int resolve(int dir, const char *path, char *whole) {
  if (!path || !*path) return path_of_fd(dir, whole) >= 0;
  int fd, used = 0;
  if (sscanf(path, "/proc/self/fd/%d%n", &fd, &used) == 1 && (path[used] == '/' || !path[used])) {
    path += used;
    if (path_of_fd(fd, whole) < 0) return 0;
  } else if (*path == '/') {
    whole[0] = 0;
  } else {
    if (dir != AT_FDCWD ? path_of_fd(dir, whole) < 0 : syscall(SYS_getcwd, whole, PATH_BYTES) < 0) return 0;
    strncat(whole, "/", PATH_BYTES - strlen(whole) - 1);
  }
  strncat(whole, path, PATH_BYTES - strlen(whole) - 1);
  return 1;
}

static int is_below(int dir, const char *path, char *whole) { return resolve(dir, path, whole) && has(roots, whole, ':'); }

static void die(void) {
  syscall(SYS_kill, getpid(), SIGKILL);
  for (;;) pause();
}

/* Numbers a call, and says what is to become of it. */
static enum verdict judge(const char *kind, const char *place) {
  long n = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
  if (log_fd >= 0) {
    char line[PATH_BYTES + 64];
    int length = snprintf(line, sizeof line, "%ld %s %s\n", n, kind, place);
    syscall(SYS_write, log_fd, line, length);
  }
  if (first == 0 || n < first || (times > 0 && n >= first + times)) return GO_ON;
  if (!strcmp(action, "kill-before")) die();
  if (!strcmp(action, "kill-after")) return KILL_AFTER;
  if (!strcmp(action, "fail")) return FAIL;
  return !strcmp(action, "short") ? SHORT : GO_ON;
}

static enum verdict on_path(const char *kind, int dir, const char *path) {
  char whole[PATH_BYTES];
  return kinds && has(kinds, kind, ',') && is_below(dir, path, whole) ? judge(kind, whole) : GO_ON;
}

/* Of two paths: either. */
static enum verdict on_paths(const char *kind, int dir, const char *path, int dir2, const char *path2) {
  char whole[PATH_BYTES];
  if (no_links && !strcmp(kind, "link") && is_below(dir2, path2, whole)) {
    return NO_LINK;
  }
  if (!kinds || !has(kinds, kind, ',')) return GO_ON;
  return is_below(dir2, path2, whole) || is_below(dir, path, whole) ? judge(kind, whole) : GO_ON;
}

static enum verdict on_socket(const char *kind) { return kinds && has(kinds, kind, ',') ? judge(kind, "-") : GO_ON; }

static int is_socket(int fd) {
  int type;
  socklen_t length = sizeof type;
  int before = errno, result = getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length);
  errno = before;
  return result == 0;
}

static enum verdict on_write(int fd) {
  if (!kinds) return GO_ON;
  return is_socket(fd) ? on_socket("send") : on_path("write", fd, NULL);
}

#define REAL(name, ...) \
  static __typeof__(name) *real; \
  if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* What becomes of a call after its verdict; `failed` is what it returns when it fails. */
#define CARRY_OUT(said, call, failed) \
  enum verdict judged = said; \
  if (judged == FAIL || judged == NO_LINK) { \
    errno = judged == FAIL ? error_number : EPERM; \
    return failed; \
  } \
  __typeof__(call) result = call; \
  if (judged == KILL_AFTER) die(); \
  return result

#define RULE(kind, name, dir, path, type, parameters, ...) \
  type name parameters { \
    REAL(name); \
    CARRY_OUT(on_path(kind, dir, path), real(__VA_ARGS__), -1); \
  }
#define RULE2(kind, name, dir, path, dir2, path2, parameters, ...) \
  int name parameters { \
    REAL(name); \
    CARRY_OUT(on_paths(kind, dir, path, dir2, path2), real(__VA_ARGS__), -1); \
  }

RULE2("rename", rename, AT_FDCWD, a, AT_FDCWD, b, (const char *a, const char *b), a, b)
RULE2("rename", renameat, d, a, e, b, (int d, const char *a, int e, const char *b), d, a, e, b)
RULE2("rename", renameat2, d, a, e, b, (int d, const char *a, int e, const char *b, unsigned f), d, a, e, b, f)
RULE2("link", link, AT_FDCWD, a, AT_FDCWD, b, (const char *a, const char *b), a, b)
RULE2("link", linkat, d, a, e, b, (int d, const char *a, int e, const char *b, int f), d, a, e, b, f)
RULE("symlink", symlink, AT_FDCWD, b, int, (const char *a, const char *b), a, b)
RULE("symlink", symlinkat, d, b, int, (const char *a, int d, const char *b), a, d, b)
RULE("unlink", unlink, AT_FDCWD, p, int, (const char *p), p)
RULE("unlink", remove, AT_FDCWD, p, int, (const char *p), p)
RULE("rmdir", rmdir, AT_FDCWD, p, int, (const char *p), p)
RULE("mkdir", mkdir, AT_FDCWD, p, int, (const char *p, mode_t m), p, m)
RULE("mkdir", mkdirat, d, p, int, (int d, const char *p, mode_t m), d, p, m)
RULE("chmod", chmod, AT_FDCWD, p, int, (const char *p, mode_t m), p, m)
RULE("chmod", fchmod, f, NULL, int, (int f, mode_t m), f, m)
RULE("truncate", ftruncate, f, NULL, int, (int f, off_t n), f, n)
RULE("truncate", ftruncate64, f, NULL, int, (int f, off64_t n), f, n)
RULE("fsync", fsync, f, NULL, int, (int f), f)
RULE("fsync", fdatasync, f, NULL, int, (int f), f)
RULE("write", pwritev, f, NULL, ssize_t, (int f, const struct iovec *v, int c, off_t o), f, v, c, o)
RULE("write", pwritev64, f, NULL, ssize_t, (int f, const struct iovec *v, int c, off64_t o), f, v, c, o)
RULE("read", pread, f, NULL, ssize_t, (int f, void *b, size_t n, off_t o), f, b, n, o)
RULE("read", pread64, f, NULL, ssize_t, (int f, void *b, size_t n, off64_t o), f, b, n, o)
RULE("read", read, f, NULL, ssize_t, (int f, void *b, size_t n), f, b, n)

int unlinkat(int d, const char *p, int f) {
  REAL(unlinkat);
  CARRY_OUT(on_path(f & AT_REMOVEDIR ? "rmdir" : "unlink", d, p), real(d, p, f), -1);
}

/* Times, as a coarse file system keeps them. */
static const struct timespec *coarse(int dir, const char *path, const struct timespec *t, struct timespec *rounded) {
  char whole[PATH_BYTES];
  if (step == 0 || t == NULL || !is_below(dir, path, whole)) return t;
  for (int i = 0; i < 2; i++) {
    rounded[i] = t[i];
    if (t[i].tv_nsec >= 1000000000) continue; /* now, or unchanged */
    long past = t[i].tv_sec % step;
    rounded[i].tv_sec -= past < 0 ? past + step : past;
    rounded[i].tv_nsec = 0;
  }
  return rounded;
}

int futimens(int f, const struct timespec t[2]) {
  REAL(futimens);
  struct timespec rounded[2];
  CARRY_OUT(on_path("utimes", f, NULL), real(f, coarse(f, NULL, t, rounded)), -1);
}

int utimensat(int d, const char *p, const struct timespec t[2], int f) {
  REAL(utimensat);
  struct timespec rounded[2];
  CARRY_OUT(on_path("utimes", d, p), real(d, p, coarse(d, p, t, rounded), f), -1);
}

#define WRITE(name, parameters, ...) \
  ssize_t name parameters { \
    REAL(name); \
    enum verdict judged = on_write(f); \
    if (judged == FAIL) { \
      errno = error_number; \
      return -1; \
    } \
    if (judged == SHORT && n > 1) n /= 2; \
    ssize_t result = real(__VA_ARGS__); \
    if (judged == KILL_AFTER) die(); \
    return result; \
  }
WRITE(write, (int f, const void *b, size_t n), f, b, n)
WRITE(pwrite, (int f, const void *b, size_t n, off_t o), f, b, n, o)
WRITE(pwrite64, (int f, const void *b, size_t n, off64_t o), f, b, n, o)

ssize_t writev(int f, const struct iovec *v, int c) {
  REAL(writev);
  CARRY_OUT(on_write(f), real(f, v, c), -1);
}

ssize_t sendmsg(int f, const struct msghdr *m, int flags) {
  REAL(sendmsg);
  CARRY_OUT(on_socket("send"), real(f, m, flags), -1);
}

int connect(int f, const struct sockaddr *a, socklen_t n) {
  REAL(connect);
  CARRY_OUT(on_socket("connect"), real(f, a, n), -1);
}

/* Opening to write is one kind, to read another, a directory a third. */
static const char *kind_of_open(int flags) {
  if (flags & (O_WRONLY | O_RDWR | O_CREAT)) return "open";
  return flags & O_DIRECTORY ? "readdir" : "open-read";
}
static int takes_mode(int flags) { return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE; }
#define MODE(flags) \
  mode_t m = 0; \
  if (takes_mode(flags)) { \
    va_list more; \
    va_start(more, flags); \
    m = va_arg(more, mode_t); \
    va_end(more); \
  }
#define OPEN(name) \
  int name(const char *p, int flags, ...) { \
    REAL(name); \
    MODE(flags) \
    if (is_plan(p)) { \
      take_plan(p); \
      return real("/dev/null", O_RDONLY | O_CLOEXEC); \
    } \
    CARRY_OUT(on_path(kind_of_open(flags), AT_FDCWD, p), real(p, flags, m), -1); \
  }
#define OPENAT(name) \
  int name(int d, const char *p, int flags, ...) { \
    REAL(name); \
    MODE(flags) \
    CARRY_OUT(on_path(kind_of_open(flags), d, p), real(d, p, flags, m), -1); \
  }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

DIR *opendir(const char *p) {
  REAL(opendir);
  CARRY_OUT(on_path("readdir", AT_FDCWD, p), real(p), NULL);
}

#define SCANDIR(name, entry) \
  int name(const char *p, struct entry ***l, int (*f)(const struct entry *), int (*c)(const struct entry **, const struct entry **)) { \
    REAL(name); \
    CARRY_OUT(on_path("readdir", AT_FDCWD, p), real(p, l, f, c), -1); \
  }
SCANDIR(scandir, dirent)
SCANDIR(scandir64, dirent64)

int statx(int d, const char *p, int flags, unsigned mask, struct statx *b) {
  REAL(statx);
  CARRY_OUT(on_path("stat", d, p), real(d, p, flags, mask, b), -1);
}

/* libuv asks for the state of a file past the C library's own function. */
long syscall(long n, ...) {
  static long (*real)(long, ...);
  if (!real) real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
  va_list more;
  va_start(more, n);
  long a = va_arg(more, long), b = va_arg(more, long), c = va_arg(more, long), d = va_arg(more, long), e = va_arg(more, long),
       f = va_arg(more, long);
  va_end(more);
  if (n != SYS_statx) return real(n, a, b, c, d, e, f);
  CARRY_OUT(on_path("stat", (int)a, (const char *)b), real(n, a, b, c, d, e, f), -1);
}
