/*
 * Opening days in one byte.
 *
 * A directory stores the weekly opening days of each shop in a single byte: bit 0
 * stands for Monday, bit 6 for Sunday, and a set bit means open. Write functions
 * that tell how many days from a given weekday the shop opens next (0 if it is open
 * on that day, -1 if it never opens) and for how many days in a row, beginning with
 * a given weekday, it stays open (at most 7).
 */

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum weekday { MON, TUE, WED, THU, FRI, SAT, SUN, DAYS_PER_WEEK };

/* The bit that stands for one day. */
#define DAY(day) ((uint8_t)(1u << (day)))

static bool is_open(uint8_t days, int day)
{
    /* Days past Sunday wrap around to the next week. */
    return (days & DAY(day % DAYS_PER_WEEK)) != 0;
}

/* Days from `day` until the shop is open; -1 if it never opens. */
static int days_until_open(uint8_t days, enum weekday day)
{
    for (int wait = 0; wait < DAYS_PER_WEEK; wait++) {
        if (is_open(days, day + wait)) {
            return wait;
        }
    }
    return -1;
}

/* Length of the run of open days that begins with `day`. */
static int days_in_a_row(uint8_t days, enum weekday day)
{
    int run = 0;

    /* A shop that never closes would keep the loop going: stop after a week. */
    while (run < DAYS_PER_WEEK && is_open(days, day + run)) {
        run++;
    }
    return run;
}

int main(void)
{
    const uint8_t bakery = DAY(MON) | DAY(TUE) | DAY(SAT) | DAY(SUN);
    const uint8_t kiosk = 0x7f;
    const uint8_t closed_down = 0;

    assert(days_until_open(bakery, TUE) == 0);
    assert(days_until_open(bakery, WED) == 3);
    assert(days_until_open(closed_down, MON) == -1);
    assert(days_in_a_row(bakery, SAT) == 4);
    assert(days_in_a_row(bakery, WED) == 0);
    assert(days_in_a_row(kiosk, THU) == 7);

    printf("from Wednesday it is %d days to fresh bread\n",
           days_until_open(bakery, WED));
    return 0;
}
