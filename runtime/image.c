/* PNG by libpng, JPEG by libturbojpeg, in memory; sizes are checked before
 * pixels are allocated. */
#include "runtime/files.h"

#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>

enum {
    LONGEST_SIDE = 16384,
    MOST_PIXELS = 1 << 26,
    LARGEST_FILE = 256 << 20,
};

AqStatus aq_image_new(AqImage *image, int height, int width, int channels,
                      AqError *error)
{
    *image = (AqImage){.height = height, .width = width, .channels = channels};
    size_t bytes;
    if (height < 1 || width < 1 || channels < 1 ||
        __builtin_mul_overflow((size_t)height, (size_t)width, &bytes) ||
        __builtin_mul_overflow(bytes, (size_t)channels, &bytes))
        return aq_fail(error, AQ_INTERNAL, "no picture can be %dx%dx%d", height,
                       width, channels);
    image->pixels = malloc(bytes);
    return image->pixels ? AQ_OK : aq_no_memory(error, bytes);
}

void aq_image_free(AqImage *image)
{
    free(image->pixels);
    *image = (AqImage){0};
}

static AqStatus broken(const char *name, const char *kind, const char *why,
                       AqError *error)
{
    return aq_fail(error, AQ_BAD_INPUT, "%.500s: a broken %s file: %.200s",
                   name, kind, why);
}

static AqStatus check_size(const char *name, uint32_t height, uint32_t width,
                           AqError *error)
{
    if (height <= LONGEST_SIDE && width <= LONGEST_SIDE &&
        (uint64_t)height * width <= MOST_PIXELS)
        return AQ_OK;
    return aq_fail(error, AQ_BAD_INPUT,
                   "%.500s: a picture of %ux%u pixels is over the limit of %d "
                   "pixels a side and %d in all",
                   name, width, height, LONGEST_SIDE, MOST_PIXELS);
}

/* ---- PNG ---- */

/* The plain interface of libpng: the simplified one of 1.6.39 mixes up the rows
 * of interlaced pictures with 16 bits. */
typedef struct PngReader {
    const unsigned char *data;
    size_t bytes;
    const char *name;
    AqImage *image;
    png_bytep *rows;
    AqError *error;
} PngReader;

static void png_failed(png_structp png, png_const_charp why)
{
    const PngReader *reader = png_get_error_ptr(png);
    broken(reader->name, "PNG", why, reader->error);
    png_longjmp(png, 1);
}

static void png_warned(png_structp png, png_const_charp why)
{
    (void)png;
    (void)why;
}

static void png_take(png_structp png, png_bytep out, png_size_t bytes)
{
    PngReader *reader = png_get_io_ptr(png);
    if (bytes > reader->bytes)
        png_error(png, "it ends before the picture");
    memcpy(out, reader->data, bytes);
    reader->data += bytes;
    reader->bytes -= bytes;
}

/* Leaves by longjmp when the file is broken. */
static AqStatus read_png(png_structp png, png_infop info, PngReader *reader)
{
    png_read_info(png, info);
    uint32_t height = png_get_image_height(png, info);
    uint32_t width = png_get_image_width(png, info);
    /* before libpng allocates rows */
    AqStatus status = check_size(reader->name, height, width, reader->error);
    if (status != AQ_OK)
        return status;
    png_set_expand(png); /* palettes, fewer than 8 bits, transparent colours */
    png_set_scale_16(png);
    if (png_get_color_type(png, info) == PNG_COLOR_TYPE_GRAY_ALPHA ||
        (png_get_color_type(png, info) == PNG_COLOR_TYPE_GRAY &&
         png_get_valid(png, info, PNG_INFO_tRNS)))
        png_set_gray_to_rgb(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
    AqImage *image = reader->image;
    status = aq_image_new(image, (int)height, (int)width,
                          png_get_channels(png, info), reader->error);
    if (status != AQ_OK)
        return status;
    reader->rows = malloc((size_t)image->height * sizeof *reader->rows);
    if (!reader->rows)
        return aq_no_memory(reader->error, (size_t)image->height * 8);
    size_t pitch = png_get_rowbytes(png, info);
    for (int y = 0; y < image->height; y++)
        reader->rows[y] = image->pixels + (size_t)y * pitch;
    png_read_image(png, reader->rows);
    png_read_end(png, NULL);
    return AQ_OK;
}

static AqStatus decode_png(const void *data, size_t bytes, const char *name,
                           AqImage *image, AqError *error)
{
    AqError local = {0};
    PngReader reader = {.data = data,
                        .bytes = bytes,
                        .name = name,
                        .image = image,
                        .error = &local};
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader,
                                             png_failed, png_warned);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        png_destroy_read_struct(&png, NULL, NULL);
        return aq_no_memory(error, 1);
    }
    png_set_read_fn(png, &reader, png_take);
    png_set_user_limits(png, INT32_MAX, INT32_MAX); /* check_size knows more */
    if (setjmp(png_jmpbuf(png)) == 0)
        read_png(png, info, &reader);
    png_destroy_read_struct(&png, &info, NULL);
    free(reader.rows);
    if (local.status == AQ_OK)
        return AQ_OK;
    return aq_fail(error, local.status, "%s", local.text);
}

static AqStatus write_stream(const AqImage *image, FILE *stream, AqError *error)
{
    png_image png = {
        .version = PNG_IMAGE_VERSION,
        .width = (png_uint_32)image->width,
        .height = (png_uint_32)image->height,
        .format = image->channels == 1   ? PNG_FORMAT_GRAY
                  : image->channels == 3 ? PNG_FORMAT_RGB
                                         : PNG_FORMAT_RGBA,
    };
    if (!png_image_write_to_stdio(&png, stream, 0, image->pixels, 0, NULL))
        return aq_fail(error, AQ_NO_MEMORY, "cannot encode a PNG: %s",
                       png.message);
    return AQ_OK;
}

AqStatus aq_png_encode(const AqImage *image, AqText *out, AqError *error)
{
    if (image->channels != 1 && image->channels != 3 && image->channels != 4)
        return aq_fail(error, AQ_INTERNAL, "no PNG has %d channels here",
                       image->channels);
    char *data = NULL;
    size_t bytes = 0;
    FILE *stream = open_memstream(&data, &bytes);
    if (!stream)
        return aq_no_memory(error, sizeof *stream);
    AqStatus status = write_stream(image, stream, error);
    if (fclose(stream) != 0 && status == AQ_OK)
        status = aq_no_memory(error, bytes);
    if (status == AQ_OK) {
        aq_text_bytes(out, data, bytes);
        if (out->failed)
            status = aq_no_memory(error, bytes);
    }
    free(data);
    return status;
}

AqStatus aq_png_write(const char *path, const AqImage *image, AqError *error)
{
    AqText text = {0};
    AqStatus status = aq_png_encode(image, &text, error);
    if (status == AQ_OK)
        status = aq_file_write(path, text.data, text.length, error);
    aq_text_free(&text);
    return status;
}

/* ---- JPEG ---- */

/* libjpeg only warns where a file is cut, and goes on in grey; that is broken.
 * Other warnings (bytes too many between segments) leave the picture whole. */
static bool decoded(tjhandle jpeg, int result)
{
    if (result == 0)
        return true;
    return tjGetErrorCode(jpeg) == TJERR_WARNING &&
           !strstr(tjGetErrorStr2(jpeg), "remature end");
}

static AqStatus decode_jpeg_with(tjhandle jpeg, const void *data, size_t bytes,
                                 const char *name, AqImage *image,
                                 AqError *error)
{
    int width = 0, height = 0, sampling, space;
    if (!decoded(jpeg, tjDecompressHeader3(jpeg, data, bytes, &width, &height,
                                           &sampling, &space)))
        return broken(name, "JPEG", tjGetErrorStr2(jpeg), error);
    if (width < 1 || height < 1)
        return broken(name, "JPEG", "it ends before the picture", error);
    if (space == TJCS_CMYK || space == TJCS_YCCK)
        return aq_fail(error, AQ_BAD_INPUT,
                       "%.500s: a JPEG for print (CMYK); save it as RGB", name);
    int channels = space == TJCS_GRAY ? 1 : 3;
    AqStatus status =
        check_size(name, (uint32_t)height, (uint32_t)width, error);
    if (status == AQ_OK)
        status = aq_image_new(image, height, width, channels, error);
    if (status != AQ_OK)
        return status;
    int format = channels == 1 ? TJPF_GRAY : TJPF_RGB;
    /* a limit of scans: a small progressive file can ask for hours of work */
    int flags = TJFLAG_ACCURATEDCT | TJFLAG_LIMITSCANS;
    if (!decoded(jpeg, tjDecompress2(jpeg, data, bytes, image->pixels, width, 0,
                                     height, format, flags)))
        return broken(name, "JPEG", tjGetErrorStr2(jpeg), error);
    return aq_image_turn(image, aq_exif_orientation(data, bytes), error);
}

static AqStatus decode_jpeg(const void *data, size_t bytes, const char *name,
                            AqImage *image, AqError *error)
{
    tjhandle jpeg = tjInitDecompress();
    if (!jpeg)
        return aq_no_memory(error, 1);
    AqStatus status = decode_jpeg_with(jpeg, data, bytes, name, image, error);
    tjDestroy(jpeg);
    return status;
}

/* ---- either ---- */

AqStatus aq_image_decode(const void *data, size_t bytes, const char *name,
                         AqImage *image, AqError *error)
{
    static const unsigned char png[8] = "\x89PNG\r\n\x1a\n";
    static const unsigned char jpeg[3] = "\xff\xd8\xff";
    *image = (AqImage){0};
    AqStatus status;
    if (bytes >= sizeof png && memcmp(data, png, sizeof png) == 0)
        status = decode_png(data, bytes, name, image, error);
    else if (bytes >= sizeof jpeg && memcmp(data, jpeg, sizeof jpeg) == 0)
        status = decode_jpeg(data, bytes, name, image, error);
    else
        status =
            aq_fail(error, AQ_BAD_INPUT,
                    "%.500s: holds neither a PNG nor a JPEG picture", name);
    if (status != AQ_OK)
        aq_image_free(image);
    return status;
}

AqStatus aq_image_read(const char *path, AqImage *image, AqError *error)
{
    char *data;
    size_t bytes;
    *image = (AqImage){0};
    AqStatus status = aq_file_read(path, LARGEST_FILE, &data, &bytes, error);
    if (status != AQ_OK)
        return status;
    status = aq_image_decode(data, bytes, path, image, error);
    free(data);
    return status;
}
