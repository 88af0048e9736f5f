/* Batches in a fixed order, made ahead on a thread of their own. */
#include "runtime/run.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { AHEAD = 3 }; /* batches */

/* Streams of random numbers of the loader. */
enum { STREAM_ORDER = 1, STREAM_VIEW = 2 };

struct AqLoader {
    const AqDataset *set;
    AqLoaderOptions options;
    int64_t sample_floats;
    AqBatch ring[AHEAD];
    int64_t made, taken; /* batches; made - taken <= AHEAD */
    int32_t *order;      /* of `epoch` */
    int64_t epoch;
    AqError error; /* of the batch after the last one made */
    bool ending, started, in_use;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
};

static void draw(const AqLoader *loader, uint32_t stream, uint64_t a,
                 uint32_t b, uint32_t out[4])
{
    uint32_t counter[4] = {b, (uint32_t)a, (uint32_t)(a >> 32), stream};
    uint32_t key[2];
    aq_philox_key(loader->options.seed, key);
    aq_philox(counter, key, out);
}

/* Fisher and Yates; position i is exchanged with one of 0 .. i. */
static void shuffle(AqLoader *loader, int64_t epoch)
{
    int64_t count = aq_dataset_count(loader->set);
    for (int64_t i = 0; i < count; i++)
        loader->order[i] = (int32_t)i;
    for (int64_t i = count - 1; i > 0; i--) {
        uint32_t words[4];
        draw(loader, STREAM_ORDER, (uint64_t)epoch, (uint32_t)i, words);
        uint64_t wide = (uint64_t)words[0] << 32 | words[1];
        int64_t k = (int64_t)(((__uint128_t)wide * (uint64_t)(i + 1)) >> 64);
        int32_t kept = loader->order[i];
        loader->order[i] = loader->order[k];
        loader->order[k] = kept;
    }
    loader->epoch = epoch;
}

static float unit(uint32_t word)
{
    return (float)(word >> 8) * 0x1p-24f;
}

static AqStatus make_sample(AqLoader *loader, AqBatch *batch, int i, int64_t n,
                            AqError *error)
{
    int64_t count = aq_dataset_count(loader->set), epoch = n / count;
    if (epoch != loader->epoch)
        shuffle(loader, epoch);
    int64_t index = loader->order[n % count];
    uint32_t words[4];
    draw(loader, STREAM_VIEW, (uint64_t)n, 0, words);
    bool flip = loader->options.flip && words[0] >> 31;
    bool random = loader->options.random_crop;
    float x = random ? unit(words[1]) : 0.5f;
    float y = random ? unit(words[2]) : 0.5f;
    batch->sample[i] = (int32_t)(uint32_t)n;
    batch->label[i] = aq_dataset_label(loader->set, index);
    return aq_dataset_fetch(loader->set, index, flip, x, y,
                            batch->x + i * loader->sample_floats, error);
}

static AqStatus make_batch(AqLoader *loader, int64_t number, AqError *error)
{
    AqBatch *batch = &loader->ring[number % AHEAD];
    int size = loader->options.batch;
    int64_t first = loader->options.first + number * size;
    for (int i = 0; i < size; i++)
        if (make_sample(loader, batch, i, first + i, error))
            return error->status;
    return AQ_OK;
}

static void *make_ahead(void *argument)
{
    AqLoader *loader = argument;
    pthread_mutex_lock(&loader->lock);
    while (!loader->ending && !loader->error.status) {
        if (loader->made - loader->taken >= AHEAD) {
            pthread_cond_wait(&loader->changed, &loader->lock);
            continue;
        }
        int64_t number = loader->made;
        pthread_mutex_unlock(&loader->lock);
        AqError error = {0};
        make_batch(loader, number, &error);
        pthread_mutex_lock(&loader->lock);
        loader->error = error;
        loader->made += error.status == AQ_OK;
        pthread_cond_broadcast(&loader->changed);
    }
    pthread_mutex_unlock(&loader->lock);
    return NULL;
}

static bool reserve(AqLoader *loader)
{
    loader->sample_floats = (int64_t)aq_dataset_floats(loader->set);
    size_t batch = (size_t)loader->options.batch;
    size_t floats = batch * (size_t)loader->sample_floats;
    loader->order =
        malloc((size_t)aq_dataset_count(loader->set) * sizeof(int32_t));
    bool got = loader->order != NULL;
    for (int i = 0; i < AHEAD; i++) {
        AqBatch *b = &loader->ring[i];
        b->x = malloc(floats * sizeof(float));
        b->sample = malloc(batch * sizeof(int32_t));
        b->label = malloc(batch * sizeof(int32_t));
        got = got && b->x && b->sample && b->label;
    }
    return got;
}

AqLoader *aq_loader_new(const AqDataset *set, const AqLoaderOptions *options,
                        AqError *error)
{
    AqLoader *loader = calloc(1, sizeof *loader);
    if (!loader) {
        aq_no_memory(error, sizeof *loader);
        return NULL;
    }
    loader->set = set;
    loader->options = *options;
    loader->epoch = -1;
    pthread_mutex_init(&loader->lock, NULL);
    pthread_cond_init(&loader->changed, NULL);
    if (!reserve(loader))
        aq_no_memory(error, (size_t)aq_loader_bytes(set, options->batch));
    else if (pthread_create(&loader->thread, NULL, make_ahead, loader))
        aq_fail(error, AQ_NO_MEMORY, "no thread could be started for the data");
    else
        loader->started = true;
    if (loader->started)
        return loader;
    aq_loader_free(loader);
    return NULL;
}

void aq_loader_free(AqLoader *loader)
{
    if (!loader)
        return;
    pthread_mutex_lock(&loader->lock);
    loader->ending = true;
    pthread_cond_broadcast(&loader->changed);
    pthread_mutex_unlock(&loader->lock);
    if (loader->started)
        pthread_join(loader->thread, NULL);
    for (int i = 0; i < AHEAD; i++) {
        free(loader->ring[i].x);
        free(loader->ring[i].sample);
        free(loader->ring[i].label);
    }
    free(loader->order);
    pthread_cond_destroy(&loader->changed);
    pthread_mutex_destroy(&loader->lock);
    free(loader);
}

/* The batch handed out last counts as taken only now: it was in use. */
const AqBatch *aq_loader_next(AqLoader *loader, AqError *error)
{
    pthread_mutex_lock(&loader->lock);
    if (loader->in_use)
        loader->taken++;
    pthread_cond_broadcast(&loader->changed);
    while (loader->made <= loader->taken && !loader->error.status)
        pthread_cond_wait(&loader->changed, &loader->lock);
    loader->in_use = loader->made > loader->taken;
    const AqBatch *batch =
        loader->in_use ? &loader->ring[loader->taken % AHEAD] : NULL;
    if (!batch)
        aq_fail(error, loader->error.status, "%s", loader->error.text);
    pthread_mutex_unlock(&loader->lock);
    return batch;
}

int64_t aq_loader_bytes(const AqDataset *set, int batch)
{
    int64_t sample = (int64_t)(aq_dataset_floats(set) * sizeof(float));
    return AHEAD * batch * (sample + 8) + aq_dataset_count(set) * 4;
}
