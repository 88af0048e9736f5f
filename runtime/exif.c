/* Which way up a photo is: cameras store rows as the sensor gives them, and a
 * note (tag 0x0112 in the first directory of the Exif segment, 1 .. 8). */
#include "runtime/files.h"

#include <string.h>

enum { ORIENTATION = 0x0112, SHORT = 3, ENTRY = 12 };

/* Bytes whose numbers are read only where they are; outside they are 0. */
typedef struct View {
    const unsigned char *data;
    size_t bytes;
    bool little;
} View;

static uint32_t number(const View *v, size_t at, int bytes)
{
    uint32_t value = 0;
    if (at > v->bytes || (size_t)bytes > v->bytes - at)
        return 0;
    for (int i = 0; i < bytes; i++)
        value = value << 8 | v->data[at + (v->little ? bytes - 1 - i : i)];
    return value;
}

static int from_directory(const View *tiff)
{
    size_t at = number(tiff, 4, 4);
    int entries = (int)number(tiff, at, 2);
    for (int i = 0; i < entries; i++) {
        size_t entry = at + 2 + (size_t)i * ENTRY;
        if (number(tiff, entry, 2) != ORIENTATION)
            continue;
        int value = (int)number(tiff, entry + 8, 2);
        bool good = number(tiff, entry + 2, 2) == SHORT && value <= 8;
        return good && value >= 1 ? value : 1;
    }
    return 1;
}

int aq_exif_orientation(const void *jpeg, size_t bytes)
{
    static const char name[6] = "Exif\0";
    View file = {jpeg, bytes, false};
    size_t at = 2;
    /* segments: 0xff, kind, two bytes of length (its own with them) */
    while (number(&file, at, 1) == 0xff) {
        uint32_t kind = number(&file, at + 1, 1);
        size_t length = number(&file, at + 2, 2);
        if (kind == 0xda || length < 2 || at + 2 + length > bytes)
            break; /* the picture begins */
        if (kind == 0xe1 && length >= 2 + sizeof name + 8 &&
            memcmp(file.data + at + 4, name, sizeof name) == 0) {
            View tiff = {file.data + at + 10, length - 8, false};
            tiff.little = tiff.data[0] == 'I';
            return from_directory(&tiff);
        }
        at += 2 + length;
    }
    return 1;
}

/* Where the pixel (y, x) of the upright picture lies in the stored one. */
static void source(int orientation, const AqImage *from, int *y, int *x)
{
    int top = orientation >= 5 ? *x : *y, left = orientation >= 5 ? *y : *x;
    bool up = orientation == 3 || orientation == 4 || orientation == 6 ||
              orientation == 7;
    bool back = orientation == 2 || orientation == 3 || orientation == 7 ||
                orientation == 8;
    *y = up ? from->height - 1 - top : top;
    *x = back ? from->width - 1 - left : left;
}

AqStatus aq_image_turn(AqImage *image, int orientation, AqError *error)
{
    if (orientation < 2 || orientation > 8)
        return AQ_OK;
    AqImage to;
    bool across = orientation >= 5;
    AqStatus status = aq_image_new(&to, across ? image->width : image->height,
                                   across ? image->height : image->width,
                                   image->channels, error);
    if (status != AQ_OK)
        return status;
    size_t c = (size_t)image->channels;
    uint8_t *out = to.pixels;
    for (int i = 0; i < to.height; i++)
        for (int j = 0; j < to.width; j++, out += c) {
            int y = i, x = j;
            source(orientation, image, &y, &x);
            memcpy(out, image->pixels + ((size_t)y * image->width + x) * c, c);
        }
    aq_image_free(image);
    *image = to;
    return AQ_OK;
}
