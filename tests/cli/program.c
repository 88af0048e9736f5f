/* The built program, run by a shell with its output in files. */
#include "tests/cli/program.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char root[] = "/tmp/aq_cli_XXXXXX";
static char printed[AQ_PROGRAM_TEXT], complained[AQ_PROGRAM_TEXT];

int aq_program_setup(void **state)
{
    (void)state;
    return mkdtemp(root) && !setenv("XDG_CACHE_HOME", root, 1) ? 0 : -1;
}

int aq_program_teardown(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "chmod -R u+w %s; rm -r %s", root, root);
    return system(command);
}

const char *aq_program_root(void)
{
    return root;
}

static void load(const char *name, char *text)
{
    char path[100];
    snprintf(path, sizeof path, "%s/%s", root, name);
    FILE *file = fopen(path, "r");
    size_t bytes = file ? fread(text, 1, AQ_PROGRAM_TEXT - 1, file) : 0;
    text[bytes] = 0;
    if (file)
        fclose(file);
}

static int run_line(const char *line)
{
    AqText text = {0};
    aq_text_printf(&text,
                   "cd %s && aquatint() { %s \"$@\"; } && { %s\n} "
                   ">.out 2>.err",
                   root, AQ_PROGRAM, line);
    int status = system(text.data);
    aq_text_free(&text);
    load(".out", printed);
    load(".err", complained);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void format_line(AqText *text, const char *format, va_list args)
{
    aq_text_vprintf(text, format, args);
    if (text->failed)
        fail_msg("memory ended");
}

int aq_shell(const char *format, ...)
{
    AqText line = {0};
    va_list args;
    va_start(args, format);
    format_line(&line, format, args);
    va_end(args);
    int status = run_line(line.data);
    aq_text_free(&line);
    return status;
}

const char *aq_printed(void)
{
    return printed;
}

const char *aq_complained(void)
{
    return complained;
}

void aq_expect(int status, const char *sentence, const char *format, ...)
{
    AqText line = {0};
    va_list args;
    aq_text_add(&line, "aquatint ");
    va_start(args, format);
    format_line(&line, format, args);
    va_end(args);
    int is = run_line(line.data);
    const char *where = status ? complained : printed;
    if (is != status || (sentence && !strstr(where, sentence)))
        fail_msg("%s\nexpected %d and: %s\nbut it is %d with\n%s%s", line.data,
                 status, sentence ? sentence : "(anything)", is, printed,
                 complained);
    aq_text_free(&line);
}

char *aq_contents(const char *name, size_t *bytes)
{
    char path[500], *data;
    AqError error = {0};
    snprintf(path, sizeof path, "%s/%s", root, name);
    if (aq_file_read(path, (size_t)1 << 30, &data, bytes, &error))
        fail_msg("%s", error.text);
    return data;
}

bool aq_same_files(const char *a, const char *b)
{
    size_t m, n;
    char *x = aq_contents(a, &m), *y = aq_contents(b, &n);
    bool same = m == n && !memcmp(x, y, m);
    free(x);
    free(y);
    return same;
}
