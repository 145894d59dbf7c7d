/*
 * What a thief tries with all that was found on a host: each 32 bytes of it, as they are, in base64 and in hexadecimal digits, are taken for
 * the key of each stored file. A file counts as open when the first bytes of its content, which the thief has guessed, come out. AES-256 is
 * written here once more, so that nothing of the program is believed.
 *
 * thief STRIDE FILE...   with a line for each stored file on standard input: name, IV, beginning of the ciphertext, of the plaintext (hex).
 * Prints a line for each file that opens: name, key, where it was; then how many keys were tried.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t sbox[256];
static uint32_t mix[4][256];

static uint8_t twice(uint8_t x) { return (uint8_t)((x << 1) ^ ((x >> 7) * 0x1b)); }

static void make_tables(void) {
  uint8_t p = 1, q = 1;
  do {
    p = (uint8_t)(p ^ twice(p));
    q ^= (uint8_t)(q << 1);
    q ^= (uint8_t)(q << 2);
    q ^= (uint8_t)(q << 4);
    if (q & 0x80) q ^= 0x09;
    uint8_t x = q;
    for (int i = 1; i < 5; i++) x ^= (uint8_t)((q << i) | (q >> (8 - i)));
    sbox[p] = (uint8_t)(x ^ 0x63);
  } while (p != 1);
  sbox[0] = 0x63;
  for (int i = 0; i < 256; i++) {
    uint8_t s = sbox[i], d = twice(s);
    uint32_t word = ((uint32_t)d << 24) | ((uint32_t)s << 16) | ((uint32_t)s << 8) | (uint8_t)(d ^ s);
    for (int j = 0; j < 4; j++) mix[j][i] = j == 0 ? word : (word >> (8 * j)) | (word << (32 - 8 * j));
  }
}

static uint32_t load(const uint8_t *p) {
  return ((uint32_t)p[0] << 24) | ((uint32_t)p[1] << 16) | ((uint32_t)p[2] << 8) | p[3];
}

static uint32_t substitute(uint32_t w) {
  return ((uint32_t)sbox[w >> 24] << 24) | ((uint32_t)sbox[(w >> 16) & 255] << 16) | ((uint32_t)sbox[(w >> 8) & 255] << 8) |
         sbox[w & 255];
}

static void expand(const uint8_t key[32], uint32_t w[60]) {
  uint8_t constant = 1;
  for (int i = 0; i < 8; i++) w[i] = load(key + 4 * i);
  for (int i = 8; i < 60; i++) {
    uint32_t t = w[i - 1];
    if (i % 8 == 0) {
      t = substitute((t << 8) | (t >> 24)) ^ ((uint32_t)constant << 24);
      constant = twice(constant);
    } else if (i % 8 == 4) {
      t = substitute(t);
    }
    w[i] = w[i - 8] ^ t;
  }
}

static void encrypt(const uint32_t w[60], const uint8_t in[16], uint8_t out[16]) {
  uint32_t s[4], t[4];
  for (int i = 0; i < 4; i++) s[i] = load(in + 4 * i) ^ w[i];
  for (int round = 1; round < 14; round++) {
    for (int i = 0; i < 4; i++)
      t[i] = mix[0][s[i] >> 24] ^ mix[1][(s[(i + 1) & 3] >> 16) & 255] ^ mix[2][(s[(i + 2) & 3] >> 8) & 255] ^
             mix[3][s[(i + 3) & 3] & 255] ^ w[4 * round + i];
    memcpy(s, t, sizeof s);
  }
  for (int i = 0; i < 4; i++) {
    uint32_t last = ((uint32_t)sbox[s[i] >> 24] << 24) | ((uint32_t)sbox[(s[(i + 1) & 3] >> 16) & 255] << 16) |
                    ((uint32_t)sbox[(s[(i + 2) & 3] >> 8) & 255] << 8) | sbox[s[(i + 3) & 3] & 255];
    last ^= w[56 + i];
    for (int j = 0; j < 4; j++) out[4 * i + j] = (uint8_t)(last >> (24 - 8 * j));
  }
}

struct stored {
  char name[128];
  uint8_t counter[16], stream[16];
  int length;
} stored[1000];
static int count;
static unsigned long tried;

static int from_hex(const char *text, uint8_t *out, int most) {
  int n = 0;
  unsigned byte;
  while (n < most && sscanf(text + 2 * n, "%2x", &byte) == 1) out[n++] = (uint8_t)byte;
  return n;
}

static void attempt(const uint8_t key[32], const char *where, size_t at, const char *how) {
  uint32_t w[60];
  uint8_t block[16];
  tried++;
  expand(key, w);
  for (int i = 0; i < count; i++) {
    encrypt(w, stored[i].counter, block);
    if (memcmp(block, stored[i].stream, (size_t)stored[i].length) != 0) continue;
    printf("%s ", stored[i].name);
    for (int j = 0; j < 32; j++) printf("%02x", key[j]);
    printf(" %s+%zu %s\n", where, at, how);
  }
}

/* Keys are made by chance: of 32 bytes, fewer than 20 different ones are none in a million million tries. */
static int looks_random(const uint8_t *p) {
  uint64_t seen[4] = {0, 0, 0, 0};
  for (int i = 0; i < 32; i++) seen[p[i] >> 6] |= 1ull << (p[i] & 63);
  int different = 0;
  for (int i = 0; i < 4; i++) different += __builtin_popcountll(seen[i]);
  return different >= 20;
}

static int value64(uint8_t c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+' || c == '-') return 62;
  return c == '/' || c == '_' ? 63 : -1;
}

static int value16(uint8_t c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static void search(const char *path, size_t stride) {
  FILE *file = fopen(path, "rb");
  if (file == NULL || fseek(file, 0, SEEK_END) != 0) exit(2);
  long size = ftell(file);
  rewind(file);
  uint8_t *all = malloc((size_t)size + 1), key[32];
  if (all == NULL || fread(all, 1, (size_t)size, file) != (size_t)size) exit(2);
  fclose(file);
  size_t length = (size_t)size, run64 = 0, run16 = 0;
  for (size_t at = 0; at < length; at++) {
    if (at % stride == 0 && at + 32 <= length && looks_random(all + at)) attempt(all + at, path, at, "raw");
    run64 = value64(all[at]) < 0 ? 0 : run64 + 1;
    run16 = value16(all[at]) < 0 ? 0 : run16 + 1;
    if (run64 >= 43) {
      const uint8_t *from = all + at - 42;
      memset(key, 0, sizeof key);
      for (int i = 0; i < 43; i++)
        for (int bit = 0; bit < 6; bit++) {
          int to = 6 * i + bit;
          if (to < 256 && (value64(from[i]) >> (5 - bit) & 1)) key[to / 8] |= (uint8_t)(0x80 >> (to % 8));
        }
      if (looks_random(key)) attempt(key, path, at - 42, "base64");
    }
    if (run16 >= 64) {
      const uint8_t *from = all + at - 63;
      for (int i = 0; i < 32; i++) key[i] = (uint8_t)(value16(from[2 * i]) << 4 | value16(from[2 * i + 1]));
      if (looks_random(key)) attempt(key, path, at - 63, "hex");
    }
  }
  free(all);
}

int main(int argc, char **argv) {
  char iv[64], cipher[64], plain[64];
  if (argc < 2) return 2;
  make_tables();
  while (count < 1000 && scanf("%127s %63s %63s %63s", stored[count].name, iv, cipher, plain) == 4) {
    uint8_t c[16], p[16];
    struct stored *one = &stored[count++];
    if (from_hex(iv, one->counter, 12) != 12) return 2;
    /* The keystream of GCM begins with the second counter block. */
    one->counter[15] = 2;
    int most = from_hex(plain, p, 16);
    one->length = from_hex(cipher, c, most);
    if (one->length < 8) return 2;
    for (int i = 0; i < one->length; i++) one->stream[i] = c[i] ^ p[i];
  }
  for (int i = 2; i < argc; i++) search(argv[i], (size_t)atoi(argv[1]));
  printf("tried %lu\n", tried);
  return 0;
}
