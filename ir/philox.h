/* The constants of Philox4x32-10, which stands here three times: for one draw
 * (philox.c), for many (philox_wide.c), and in code (codegen/random.c). */
#ifndef AQ_PHILOX_H
#define AQ_PHILOX_H

enum { AQ_PHILOX_ROUNDS = 10 };

/* what words 0 and 2 of the counter are multiplied by */
#define AQ_PHILOX_A 0xD2511F53u
#define AQ_PHILOX_B 0xCD9E8D57u
/* what is added to the two words of the key after each round */
#define AQ_PHILOX_KEY0 0x9E3779B9u /* golden ratio */
#define AQ_PHILOX_KEY1 0xBB67AE85u /* sqrt 3 - 1 */

#endif
