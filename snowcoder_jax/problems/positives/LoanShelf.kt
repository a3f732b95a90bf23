/**
 * Fees for books that come back late.
 *
 * A library lends each book for 28 days. The first three days after that are free of
 * charge; every further day costs 20 cents, but never more than the book is worth.
 * Days on which the library is closed are not charged. Given the day of lending, the
 * day of return, the value of the book and the closed days, compute the fee.
 */

import java.time.DayOfWeek
import java.time.LocalDate
import java.time.temporal.ChronoUnit

const val LOAN_DAYS = 28L
const val GRACE_DAYS = 3L
const val CENTS_PER_DAY = 20

data class Loan(val title: String, val lentOn: LocalDate, val valueInCents: Int) {
    /** The last day on which the book can be returned without any charge. */
    val freeUntil: LocalDate
        get() = lentOn.plusDays(LOAN_DAYS + GRACE_DAYS)
}

/** Returns the fee in cents for a loan that ends on [returnedOn]. */
fun lateFee(loan: Loan, returnedOn: LocalDate, isClosed: (LocalDate) -> Boolean): Int {
    require(returnedOn >= loan.lentOn) { "returned before it was lent: ${loan.title}" }

    // The count is not positive for a book in time; take() accepts no negative
    // number, so it is raised to zero.
    val daysLate = ChronoUnit.DAYS.between(loan.freeUntil, returnedOn).coerceAtLeast(0L)
    val chargedDays = generateSequence(loan.freeUntil.plusDays(1)) { it.plusDays(1) }
        .take(daysLate.toInt())
        .count { !isClosed(it) }

    return minOf(chargedDays * CENTS_PER_DAY, loan.valueInCents)
}

fun main() {
    val loan = Loan("Bees of the Alps", LocalDate.of(2024, 3, 1), valueInCents = 900)
    val closedOnSunday = { day: LocalDate -> day.dayOfWeek == DayOfWeek.SUNDAY }

    // Lent on 1 March: due on the 29th, and free of charge until Monday, 1 April.
    check(loan.freeUntil == LocalDate.of(2024, 4, 1))
    check(lateFee(loan, LocalDate.of(2024, 3, 10), closedOnSunday) == 0)
    check(lateFee(loan, LocalDate.of(2024, 4, 1), closedOnSunday) == 0)
    check(lateFee(loan, LocalDate.of(2024, 4, 2), closedOnSunday) == 20)
    // Eight days late, one of them a Sunday.
    check(lateFee(loan, LocalDate.of(2024, 4, 9), closedOnSunday) == 7 * 20)
    check(lateFee(loan, LocalDate.of(2025, 1, 1), closedOnSunday) == 900)
    println("all fees are right")
}
