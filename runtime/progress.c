/* The progress line: one that is written over on a terminal, plain lines where
 * the output is a file or a pipe. */
#include "runtime/run.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const double terminal_interval = 0.2, plain_interval = 10; /* seconds */

void aq_progress_begin(AqProgress *progress)
{
    const char *term = getenv("TERM");
    *progress = (AqProgress){.terminal = isatty(STDERR_FILENO) &&
                                         !(term && !strcmp(term, "dumb")),
                             .last_shown = -1e9};
}

static int columns(void)
{
    struct winsize size;
    bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col;
    return known ? size.ws_col : 80;
}

void aq_progress_show(AqProgress *progress, bool now, const char *format, ...)
{
    double seconds = aq_seconds();
    double interval = progress->terminal ? terminal_interval : plain_interval;
    if (!now && seconds - progress->last_shown < interval)
        return;
    progress->last_shown = seconds;
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (!progress->terminal) {
        fprintf(stderr, "%s\n", line);
        return;
    }
    int width = AQ_MIN((int)strlen(line), columns() - 1);
    fprintf(stderr, "\r%.*s%*s", width, line,
            AQ_MAX(progress->width - width, 0), "");
    progress->width = width;
    fflush(stderr);
}

void aq_progress_end(AqProgress *progress)
{
    if (progress->terminal && progress->width > 0)
        fputc('\n', stderr);
    progress->width = 0;
}

const char *aq_duration(char *text, size_t size, double seconds)
{
    long s = (long)(seconds + 0.5);
    if (s < 60)
        snprintf(text, size, "%ld s", s);
    else if (s < 3600)
        snprintf(text, size, "%ld min %02ld s", s / 60, s % 60);
    else
        snprintf(text, size, "%ld h %02ld min", s / 3600, s / 60 % 60);
    return text;
}
