/* Pictures of emoji, from two packages that every Debian has: the list of
 * sequences with their names (unicode-data) and a font whose glyphs are PNG
 * pictures (fonts-noto-color-emoji).  HarfBuzz turns a sequence into a glyph,
 * FreeType the glyph into a bitmap. */
#include "runtime/files.h"

#include <ctype.h>
#include <freetype/freetype.h>
#include <hb.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_LIMIT = 16 << 20, CODES = 16, GROUPS = 32 };

/* Below a folder of what programs share. */
static const char *const list_places[] = {
    "unicode/emoji/emoji-test.txt",
    "unicode/emoji-test.txt",
};
static const char *const font_places[] = {
    "fonts/truetype/noto/NotoColorEmoji.ttf",
    "fonts/google-noto-emoji/NotoColorEmoji.ttf",
    "fonts/noto/NotoColorEmoji.ttf",
};

typedef struct Reader {
    const char *filter; /* the beginning of a group's word; "" for all */
    size_t filter_length;
    bool tones, alpha;
    AqEmojiSink sink;
    void *context;
    hb_font_t *shaper;
    hb_buffer_t *buffer;
    FT_Library library;
    FT_Face face;
    bool wanted;   /* the current group passes the filter */
    AqEmoji emoji; /* the current group and subgroup, point into the list */
    const char *groups[GROUPS];
    int group_count;
    int drawn;
} Reader;

/* As the XDG base directories have it. */
static const char *shared_folders(void)
{
    const char *folders = getenv("XDG_DATA_DIRS");
    return folders && *folders ? folders : "/usr/local/share:/usr/share";
}

/* The first of the places that is there. */
static AqStatus find(const char *const *places, int count,
                     char path[AQ_PATH_SIZE], AqError *error)
{
    for (const char *at = shared_folders(); *at; at += *at == ':') {
        int length = (int)strcspn(at, ":");
        for (int i = 0; i < count && length > 0; i++) {
            aq_path(path, "%.*s/%s", length, at, places[i]);
            if (aq_file_exists(path))
                return AQ_OK;
        }
        at += length;
    }
    return aq_fail(error, AQ_BAD_INPUT,
                   "the emoji pictures need the Debian packages unicode-data "
                   "and fonts-noto-color-emoji (there is no %s in "
                   "XDG_DATA_DIRS=%.200s): apt install them",
                   places[0], shared_folders());
}

/* ---- the font ---- */

static AqStatus open_font(Reader *r, const char *path, AqError *error)
{
    hb_blob_t *blob = hb_blob_create_from_file(path);
    hb_face_t *face = hb_face_create(blob, 0);
    r->shaper = hb_font_create(face);
    r->buffer = hb_buffer_create();
    hb_face_destroy(face);
    hb_blob_destroy(blob);
    if (FT_Init_FreeType(&r->library) != 0)
        return aq_no_memory(error, 4096);
    if (FT_New_Face(r->library, path, 0, &r->face) != 0 ||
        !FT_HAS_FIXED_SIZES(r->face) || FT_Select_Size(r->face, 0) != 0)
        return aq_fail(error, AQ_BAD_INPUT,
                       "%s: is no font with colour bitmaps; reinstall the "
                       "package fonts-noto-color-emoji",
                       path);
    return AQ_OK;
}

static void close_font(Reader *r)
{
    hb_font_destroy(r->shaper);
    hb_buffer_destroy(r->buffer);
    if (r->face)
        FT_Done_Face(r->face);
    if (r->library)
        FT_Done_FreeType(r->library);
}

/* The one glyph of a sequence; 0 if the font has none. */
static hb_codepoint_t shape(Reader *r, const uint32_t *codes, int count)
{
    hb_buffer_reset(r->buffer);
    hb_buffer_add_utf32(r->buffer, codes, count, 0, count);
    hb_buffer_guess_segment_properties(r->buffer);
    hb_shape(r->shaper, r->buffer, NULL, 0);
    unsigned glyphs;
    const hb_glyph_info_t *info = hb_buffer_get_glyph_infos(r->buffer, &glyphs);
    return glyphs == 1 ? info[0].codepoint : 0;
}

/* ---- pixels ---- */

/* One pixel from blue, green, red times alpha, and alpha. */
static void convert(const uint8_t *bgra, bool alpha, uint8_t *out)
{
    int a = bgra[3];
    for (int j = 0; j < 3; j++) {
        int c = bgra[2 - j];
        int over_white = c + 255 - a;
        int alone = a ? (c * 255 + a / 2) / a : 255;
        out[j] = (uint8_t)AQ_MIN(alpha ? alone : over_white, 255);
    }
    if (alpha)
        out[3] = (uint8_t)a;
}

/* The bitmap in the middle of a square. */
static AqStatus to_square(const FT_Bitmap *bitmap, bool alpha, AqImage *image,
                          AqError *error)
{
    int height = (int)bitmap->rows, width = (int)bitmap->width;
    int side = AQ_MAX(height, width), c = alpha ? 4 : 3;
    AqStatus status = aq_image_new(image, side, side, c, error);
    if (status != AQ_OK)
        return status;
    size_t pixels = (size_t)side * (size_t)side;
    static const uint8_t nothing[4];
    for (size_t i = 0; i < pixels; i++)
        convert(nothing, alpha, image->pixels + i * (size_t)c);
    int top = (side - height) / 2, left = (side - width) / 2;
    for (int y = 0; y < height; y++) {
        const uint8_t *from = bitmap->buffer + (ptrdiff_t)y * bitmap->pitch;
        uint8_t *to = image->pixels + ((size_t)(top + y) * side + left) * c;
        for (int x = 0; x < width; x++)
            convert(from + x * 4, alpha, to + x * c);
    }
    return AQ_OK;
}

static AqStatus draw(Reader *r, const uint32_t *codes, int count,
                     AqError *error)
{
    hb_codepoint_t glyph = shape(r, codes, count);
    if (glyph == 0) /* newer than the font */
        return AQ_OK;
    const FT_Bitmap *bitmap = &r->face->glyph->bitmap;
    if (FT_Load_Glyph(r->face, glyph, FT_LOAD_COLOR) != 0 ||
        bitmap->pixel_mode != FT_PIXEL_MODE_BGRA || bitmap->rows == 0 ||
        bitmap->width == 0)
        return aq_fail(error, AQ_BAD_INPUT,
                       "the emoji font has no colour bitmap of '%s'; reinstall "
                       "the package fonts-noto-color-emoji",
                       r->emoji.name);
    AqImage image;
    AqStatus status = to_square(bitmap, r->alpha, &image, error);
    if (status != AQ_OK)
        return status;
    r->drawn++;
    status = r->sink(r->context, &r->emoji, &image, error);
    aq_image_free(&image);
    return status;
}

/* ---- the list ---- */

/* Does any word of the group's name begin with the filter? */
static bool passes(const Reader *r, const char *group)
{
    for (const char *at = group; *at; at++) {
        bool begins = at == group || !isalpha((unsigned char)at[-1]);
        if (begins && strncasecmp(at, r->filter, r->filter_length) == 0)
            return true;
    }
    return false;
}

static void enter_group(Reader *r, const char *group)
{
    if (strcmp(group, "Component") == 0) { /* parts, not pictures */
        r->wanted = false;
        return;
    }
    if (r->group_count < GROUPS)
        r->groups[r->group_count++] = group;
    r->emoji.group = group;
    r->wanted = passes(r, group);
}

/* "1F44D 1F3FB ; fully-qualified # <picture> E1.0 thumbs up: light skin tone"
 */
static AqStatus read_sequence(Reader *r, char *line, AqError *error)
{
    uint32_t codes[CODES];
    int count = 0;
    bool toned = false;
    char *at = line, *end;
    for (; count < CODES; count++, at = end) {
        unsigned long code = strtoul(at, &end, 16);
        if (end == at)
            break;
        codes[count] = (uint32_t)code;
        toned = toned || (code >= 0x1f3fb && code <= 0x1f3ff);
    }
    const char *version = strstr(at, " E");
    const char *name = version ? strchr(version + 1, ' ') : NULL;
    if (!strstr(at, "; fully-qualified") || !name || count == 0 ||
        (toned && !r->tones))
        return AQ_OK;
    r->emoji.name = name + 1;
    return draw(r, codes, count, error);
}

static AqStatus read_list(Reader *r, char *text, AqError *error)
{
    static const char group[] = "# group: ", subgroup[] = "# subgroup: ";
    char *rest = NULL;
    for (char *line = strtok_r(text, "\r\n", &rest); line;
         line = strtok_r(NULL, "\r\n", &rest)) {
        AqStatus status = AQ_OK;
        if (strncmp(line, group, sizeof group - 1) == 0)
            enter_group(r, line + sizeof group - 1);
        else if (strncmp(line, subgroup, sizeof subgroup - 1) == 0)
            r->emoji.subgroup = line + sizeof subgroup - 1;
        else if (*line != '#' && r->wanted)
            status = read_sequence(r, line, error);
        if (status != AQ_OK)
            return status;
    }
    return AQ_OK;
}

/* Makes the text small words, each ended by a zero; gives how many there are.
 */
static int to_words(AqText *text, const char **words, int most)
{
    int count = 0;
    for (size_t i = 0; i < text->length; i++) {
        char *at = text->data + i;
        bool first = i == 0 || !at[-1];
        *at =
            isalpha((unsigned char)*at) ? (char)tolower((unsigned char)*at) : 0;
        if (*at && first && count < most)
            words[count++] = at;
    }
    return count;
}

/* The word of a group's name that the filter may have meant, in `text`. */
static const char *nearest_word(const Reader *r, AqText *text)
{
    enum { MOST = 4 * GROUPS };
    const char *words[MOST];
    char wanted[64];
    snprintf(wanted, sizeof wanted, "%.*s", (int)r->filter_length, r->filter);
    for (char *at = wanted; *at; at++)
        *at = (char)tolower((unsigned char)*at);
    for (int i = 0; i < r->group_count; i++)
        aq_text_printf(text, "%s ", r->groups[i]);
    int count = text->failed ? 0 : to_words(text, words, MOST);
    return aq_nearest(wanted, words, count);
}

static AqStatus no_such_group(const Reader *r, AqError *error)
{
    AqText names = {0}, words = {0};
    for (int i = 0; i < r->group_count; i++)
        aq_text_printf(&names, "%s%s", i ? ", " : "", r->groups[i]);
    const char *near = nearest_word(r, &words);
    AqStatus status = aq_fail(
        error, AQ_BAD_INPUT,
        "emoji:%.100s: no group of emoji is called so%s%s%s; there are: %s "
        "(one word or its beginning is enough, as in emoji:smileys)",
        r->filter, near ? " (did you mean emoji:" : "", near ? near : "",
        near ? "?)" : "", names.data ? names.data : "none");
    aq_text_free(&names);
    aq_text_free(&words);
    return status;
}

static void parse_filter(Reader *r, const char *filter)
{
    static const char tones[] = "+tones";
    size_t length = strlen(filter), tail = sizeof tones - 1;
    r->filter = filter;
    r->tones = length >= tail && strcmp(filter + length - tail, tones) == 0;
    r->filter_length = r->tones ? length - tail : length;
}

AqStatus aq_emoji_each(const char *filter, bool alpha, AqEmojiSink sink,
                       void *context, AqError *error)
{
    Reader r = {.alpha = alpha, .sink = sink, .context = context};
    parse_filter(&r, filter ? filter : "");
    r.emoji.group = r.emoji.subgroup = "";
    char list[AQ_PATH_SIZE], font[AQ_PATH_SIZE], *text;
    size_t bytes;
    if (find(list_places, AQ_COUNT(list_places), list, error) ||
        find(font_places, AQ_COUNT(font_places), font, error))
        return error->status;
    AqStatus status = aq_file_read(list, LIST_LIMIT, &text, &bytes, error);
    if (status != AQ_OK)
        return status;
    status = open_font(&r, font, error);
    if (status == AQ_OK)
        status = read_list(&r, text, error);
    if (status == AQ_OK && r.drawn == 0)
        status = no_such_group(&r, error);
    close_font(&r);
    free(text);
    return status;
}
