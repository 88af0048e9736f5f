/* What plan and bench are told of a training step. */
#include "frontend/cli/cli.h"

AqStatus aq_cli_step_open(AqCli *cli, AqCliStep *step)
{
    AqTask *task = &step->task;
    *step = (AqCliStep){.task = {.batch = 1}};
    if (cli->n_words != 1)
        return aq_fail(&cli->error, AQ_BAD_INPUT, "give one model");
    task->settings = step->settings;
    aq_cli_settings(cli, step->settings, &task->n_settings);
    aq_cli_shape(cli, task);
    aq_cli_process(cli, &task->process);
    aq_cli_optimizer(cli, 1000, &step->optimizer);
    if (cli->error.status || aq_cli_session(cli, &step->session) ||
        aq_target_host(step->session.level, &step->target, &cli->error) ||
        aq_model_open(cli->words[0], NULL, &step->model, &cli->error))
        return cli->error.status;
    task->model = step->model.info;
    aq_cli_suit(cli, task);
    return cli->error.status;
}

void aq_cli_step_close(AqCliStep *step)
{
    aq_model_close(&step->model);
}
