/* The main of a fuzz target in builds without libFuzzer: replays every file that its arguments name,
 * directories with all that is in them. A property that does not hold aborts. */
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned replayed;

static bool replay_file(const char *path, size_t size)
{
    bool ok = false;
    uint8_t *data = malloc(size); /* of exactly this size: sanitizers then see a read past the end */
    FILE *file = fopen(path, "rb");
    if (file != NULL && data != NULL && fread(data, 1, size, file) == size) {
        LLVMFuzzerTestOneInput(data, size);
        ++replayed;
        ok = true;
    } else {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
    }
    if (file != NULL)
        fclose(file);
    free(data);
    return ok;
}

static bool replay(const char *path);

static bool replay_directory(const char *path)
{
    struct dirent **entries;
    int n = scandir(path, &entries, NULL, alphasort);
    if (n < 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return false;
    }
    bool ok = true;
    for (int i = 0; i < n; ++i) {
        char *inner = NULL;
        if (entries[i]->d_name[0] != '.')
            ok = asprintf(&inner, "%s/%s", path, entries[i]->d_name) > 0 && replay(inner) && ok;
        free(inner);
        free(entries[i]);
    }
    free(entries);
    return ok;
}

static bool replay(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return false;
    }
    return S_ISDIR(st.st_mode) ? replay_directory(path) : replay_file(path, (size_t)st.st_size);
}

int main(int argc, char **argv)
{
    bool ok = true;
    for (int i = 1; i < argc; ++i)
        ok = replay(argv[i]) && ok;
    printf("%u inputs replayed\n", replayed);
    return ok && replayed > 0 ? 0 : 1;
}
