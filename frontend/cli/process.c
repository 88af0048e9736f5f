/* The diffusion process and the optimizer, as options. */
#include "frontend/cli/cli.h"

static const char *const schedules[] = {
    [AQ_LINEAR] = "linear",
    [AQ_SCALED_LINEAR] = "scaled_linear",
    [AQ_COSINE] = "cosine",
};
static const char *const predictions[] = {
    [AQ_EPSILON] = "epsilon",
    [AQ_VELOCITY] = "v",
    [AQ_X0] = "x0",
};
static const char *const rates[] = {
    [AQ_RATE_CONSTANT] = "constant",
    [AQ_RATE_LINEAR] = "linear",
    [AQ_RATE_COSINE] = "cosine",
};
static const char *const optimizers[] = {
    [AQ_ADAMW] = "adamw",     [AQ_ADAM] = "adam",       [AQ_SGD] = "sgd",
    [AQ_RMSPROP] = "rmsprop", [AQ_ADAGRAD] = "adagrad",
};

void aq_cli_process(AqCli *cli, AqProcess *process)
{
    *process = (AqProcess){
        .schedule = (AqScheduleKind)aq_cli_choice(
            cli, "schedule", AQ_LINEAR, schedules, AQ_COUNT(schedules)),
        .prediction = (AqPrediction)aq_cli_choice(
            cli, "prediction", AQ_EPSILON, predictions, AQ_COUNT(predictions)),
        .steps = (int)aq_cli_int(cli, "timesteps", 1000, 2, 100000),
        .min_snr = aq_cli_real(cli, "min-snr", 0, 0, 1e6)};
}

static AqRate rate_of(AqCli *cli, double total_steps)
{
    AqRate rate = {.kind = (AqRateKind)aq_cli_choice(
                       cli, "rate", AQ_RATE_CONSTANT, rates, AQ_COUNT(rates)),
                   .base = aq_cli_real(cli, "lr", 2e-4, 1e-12, 100),
                   .warmup = aq_cli_real(cli, "warmup", 0, 0, 1e9),
                   .total = total_steps};
    if (rate.kind != AQ_RATE_CONSTANT && total_steps <= 0)
        aq_fail(&cli->error, AQ_BAD_INPUT,
                "--rate %s falls to 0 at the last step: give --steps",
                rates[rate.kind]);
    else if (rate.kind != AQ_RATE_CONSTANT && rate.warmup >= total_steps)
        aq_fail(&cli->error, AQ_BAD_INPUT,
                "--warmup %g leaves nothing of %g steps to --rate %s",
                rate.warmup, total_steps, rates[rate.kind]);
    return rate;
}

/* Options that some optimizers have and others would ignore. */
static const struct {
    const char *name, *owners;
    AqOptimizerKind of[2];
} own_options[] = {
    {"beta1", "adamw and adam", {AQ_ADAMW, AQ_ADAM}},
    {"beta2", "adamw and adam", {AQ_ADAMW, AQ_ADAM}},
    {"momentum", "sgd and rmsprop", {AQ_SGD, AQ_RMSPROP}},
};

static void refuse_options_of_others(AqCli *cli, AqOptimizerKind kind)
{
    for (int i = 0; i < AQ_COUNT(own_options); i++)
        if (aq_cli_given(cli, own_options[i].name) &&
            kind != own_options[i].of[0] && kind != own_options[i].of[1])
            aq_fail(&cli->error, AQ_BAD_INPUT,
                    "--%s is for %s, and the optimizer is %s: leave it out",
                    own_options[i].name, own_options[i].owners,
                    optimizers[kind]);
}

void aq_cli_optimizer(AqCli *cli, double total_steps, AqOptimizer *optimizer)
{
    AqOptimizerKind kind = (AqOptimizerKind)aq_cli_choice(
        cli, "optimizer", AQ_ADAMW, optimizers, AQ_COUNT(optimizers));
    double decay = kind == AQ_ADAMW ? 0.01 : 0;
    refuse_options_of_others(cli, kind);
    *optimizer = (AqOptimizer){
        .kind = kind,
        .rate = rate_of(cli, total_steps),
        .beta1 = aq_cli_real(cli, "beta1", 0.9, 1e-6, 0.999999),
        .beta2 = aq_cli_real(cli, "beta2", 0.999, 1e-6, 0.9999999),
        .momentum = aq_cli_real(cli, "momentum", 0.9, 0, 0.99999),
        .decay = aq_cli_real(cli, "decay", decay, 0, 10),
        .clip = aq_cli_real(cli, "clip", 1, 0, 1e9),
        .ema = aq_cli_real(cli, "ema", 0.9999, 0, 0.99999999)};
}

void aq_cli_print_process(const AqProcess *process)
{
    printf("process     %s, predicts %s, %d steps",
           schedules[process->schedule], predictions[process->prediction],
           aq_process_steps(process));
    if (process->min_snr > 0)
        printf(", min-SNR %g", process->min_snr);
    putchar('\n');
}

void aq_cli_print_optimizer(const AqOptimizer *o)
{
    bool named = o->rate.kind < AQ_COUNT(rates); /* by the program's options */
    printf("optimizer   %s, learning rate %g %s, decay %g, clip %g, EMA %g\n",
           optimizers[o->kind], o->rate.base,
           named ? rates[o->rate.kind] : "scheduled", o->decay, o->clip,
           o->ema);
}
