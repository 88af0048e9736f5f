/* aquatint --version: what is in use. */
#include "frontend/cli/cli.h"

int aq_cli_version(void)
{
    AqText text = {0};
    AqTarget target;
    AqError error = {0};
    aq_text_printf(&text, "aquatint %s\n", AQ_VERSION);
    aq_code_versions(&text);
    if (aq_target_host(0, &target, &error) == AQ_OK)
        aq_text_printf(
            &text, "%s, %d processors, vectors of %d floats, %d registers\n",
            target.name, aq_cpu_count(), target.vector, target.registers);
    else
        aq_text_printf(&text, "%s\n", error.text);
    if (text.data)
        fputs(text.data, stdout);
    aq_text_free(&text);
    return 0;
}
