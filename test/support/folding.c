// A disk that takes names for one that differ in case only, and keeps them as they were written first: every path at or below FOLD_ROOT
// that goes through the C library is looked up so. As on Linux with folding directories, renaming something to another case of its own
// name changes nothing. See folding.ts.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define REAL(name, type, ...) \
  static type (*real)(__VA_ARGS__); \
  if (!real) real = dlsym(RTLD_NEXT, name)

struct entry { unsigned long ino; long off; unsigned short length; unsigned char type; char name[]; };

// The name in `directory` that is `name`, or else differs from it in case only; 0 when there is none.
static int find(const char *directory, const char *name, char *found) {
  int fd = syscall(SYS_openat, AT_FDCWD, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (fd < 0) return 0;
  char buffer[16384];
  int match = 0;
  for (long size; match < 2 && (size = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0;) {
    for (long at = 0; at < size;) {
      struct entry *one = (struct entry *)(buffer + at);
      if (!strcmp(one->name, name)) { match = 2; strcpy(found, one->name); break; }
      if (!match && !strcasecmp(one->name, name)) { match = 1; strcpy(found, one->name); }
      at += one->length;
    }
  }
  syscall(SYS_close, fd);
  return match;
}

// The path as the disk has it. With `last`, its last name stays as it was given, and `*last` says whether something has it.
static const char *fold(int dir, const char *path, char *out, int *last) {
  const char *root = getenv("FOLD_ROOT");
  char whole[PATH_MAX];
  if (last) *last = 0;
  if (!root || !path || !*path) return path;
  if (path[0] != '/') {
    char link[64];
    snprintf(link, sizeof link, dir == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", dir);
    ssize_t n = syscall(SYS_readlink, link, whole, sizeof whole - 1);
    if (n < 0) return path;
    snprintf(whole + n, sizeof whole - n, "/%s", path);
  } else if (!strncmp(path, "/proc/self/fd/", 14)) {
    const char *rest = strchr(path + 14, '/');
    if (!rest) return path;
    char link[PATH_MAX];
    snprintf(link, sizeof link, "%.*s", (int)(rest - path), path);
    ssize_t n = syscall(SYS_readlink, link, whole, sizeof whole - 1);
    if (n < 0) return path;
    snprintf(whole + n, sizeof whole - n, "%s", rest);
  } else snprintf(whole, sizeof whole, "%s", path);
  size_t length = strlen(root);
  if (strncmp(whole, root, length) || whole[length] != '/') return path;
  strcpy(out, root);
  char *end, *part;
  for (part = whole + length + 1; *part; part = end) {
    while (*part == '/') part++;
    if (!*part) break;
    end = part + strcspn(part, "/");
    char kept = *end, found[NAME_MAX + 1];
    *end = 0;
    int is_last = end[kept ? 1 : 0] == 0;
    int there = find(out, part, found);
    if (last && is_last) *last = there;
    size_t used = strlen(out);
    snprintf(out + used, PATH_MAX - used, "/%s", there && !(last && is_last) ? found : part);
    *end = kept;
    if (kept) end++;
  }
  return out;
}

#define PATH(dir, path) char folded[PATH_MAX]; path = fold(dir, path, folded, 0)

#define OPEN(fn) int fn(const char *path, int flags, ...) { va_list all; va_start(all, flags); int mode = va_arg(all, int); va_end(all); \
  REAL(#fn, int, const char *, int, ...); PATH(AT_FDCWD, path); return real(path, flags, mode); }
OPEN(open) OPEN(open64)
#define OPENAT(fn) int fn(int dir, const char *path, int flags, ...) { va_list all; va_start(all, flags); int mode = va_arg(all, int); va_end(all); \
  REAL(#fn, int, int, const char *, int, ...); PATH(dir, path); return real(dir, path, flags, mode); }
OPENAT(openat) OPENAT(openat64)
int statx(int dir, const char *path, int flags, unsigned mask, struct statx *to) { REAL("statx", int, int, const char *, int, unsigned, struct statx *); PATH(dir, path); return real(dir, path, flags, mask, to); }
long syscall(long number, ...) {
  REAL("syscall", long, long, ...);
  va_list all; va_start(all, number);
  long a = va_arg(all, long), b = va_arg(all, long), c = va_arg(all, long), d = va_arg(all, long), e = va_arg(all, long), f = va_arg(all, long);
  va_end(all);
  char folded[PATH_MAX];
  if (number == SYS_statx) b = (long)fold((int)a, (const char *)b, folded, 0);
  return real(number, a, b, c, d, e, f);
}
int mkdir(const char *path, mode_t mode) { REAL("mkdir", int, const char *, mode_t); PATH(AT_FDCWD, path); return real(path, mode); }
#define ONE(fn) int fn(const char *path) { REAL(#fn, int, const char *); PATH(AT_FDCWD, path); return real(path); }
ONE(rmdir) ONE(unlink)
int chmod(const char *path, mode_t mode) { REAL("chmod", int, const char *, mode_t); PATH(AT_FDCWD, path); return real(path, mode); }
int utimensat(int dir, const char *path, const struct timespec times[2], int flags) { REAL("utimensat", int, int, const char *, const struct timespec *, int); PATH(dir, path); return real(dir, path, times, flags); }
ssize_t readlink(const char *path, char *to, size_t size) { REAL("readlink", ssize_t, const char *, char *, size_t); PATH(AT_FDCWD, path); return real(path, to, size); }
DIR *opendir(const char *path) { REAL("opendir", DIR *, const char *); PATH(AT_FDCWD, path); return real(path); }
#define SCANDIR(fn, type) int fn(const char *path, struct type ***to, int (*filter)(const struct type *), int (*order)(const struct type **, const struct type **)) { \
  REAL(#fn, int, const char *, struct type ***, int (*)(const struct type *), int (*)(const struct type **, const struct type **)); PATH(AT_FDCWD, path); return real(path, to, filter, order); }
SCANDIR(scandir, dirent) SCANDIR(scandir64, dirent64)
int symlink(const char *target, const char *path) { REAL("symlink", int, const char *, const char *); char out[PATH_MAX]; int there; path = fold(AT_FDCWD, path, out, &there); if (there) { errno = EEXIST; return -1; } return real(target, path); }
int link(const char *from, const char *path) { REAL("link", int, const char *, const char *); PATH(AT_FDCWD, from); char out[PATH_MAX]; int there; path = fold(AT_FDCWD, path, out, &there); if (there) { errno = EEXIST; return -1; } return real(from, path); }
int rename(const char *from, const char *path) {
  REAL("rename", int, const char *, const char *);
  PATH(AT_FDCWD, from);
  char given[PATH_MAX], existing[PATH_MAX];
  int there;
  const char *to = fold(AT_FDCWD, path, given, &there);
  if (there == 0) return real(from, to);
  const char *same = fold(AT_FDCWD, path, existing, 0);
  // The same thing: done, says the kernel.
  if (!strcmp(same, from)) return 0;
  return real(from, same);
}
