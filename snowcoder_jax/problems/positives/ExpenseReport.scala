/** How much of a business trip does the company pay back?
  *
  * An employee hands in expenses of three kinds. Meals are paid back up to a daily
  * limit of 3000 cents: meals on the same day are added up first. A ride is paid back
  * at 38 cents per kilometre. A ticket is paid back in full if there is a receipt,
  * and not at all otherwise. Compute the amount for a list of expenses, and list the
  * tickets that were refused.
  */
sealed trait Expense
final case class Meal(day: Int, cents: Int) extends Expense
final case class Ride(kilometres: Int) extends Expense
final case class Ticket(description: String, cents: Int, hasReceipt: Boolean) extends Expense

final case class Settlement(cents: Int, refused: List[String])

object ExpenseReport {

  private val DailyMealLimit = 3000
  private val CentsPerKilometre = 38

  /** Meals are the only kind that cannot be judged one by one. */
  private def mealAllowance(meals: List[Meal]): Int =
    meals
      .groupBy(_.day)
      .values
      .map(sameDay => sameDay.map(_.cents).sum.min(DailyMealLimit))
      .sum

  /** The amount for a single expense, leaving meals to `mealAllowance`. */
  private def allowance(expense: Expense): Int = expense match {
    case Meal(_, _)             => 0
    case Ride(kilometres)       => kilometres * CentsPerKilometre
    case Ticket(_, cents, true) => cents
    case Ticket(_, _, false)    => 0
  }

  def settle(expenses: List[Expense]): Settlement = {
    val meals = expenses.collect { case meal: Meal => meal }
    Settlement(
      cents = mealAllowance(meals) + expenses.map(allowance).sum,
      refused = expenses.collect { case Ticket(description, _, false) => description }
    )
  }

  def main(args: Array[String]): Unit = {
    val trip = List(
      Meal(day = 1, cents = 1800),
      Meal(day = 1, cents = 1900),
      Meal(day = 2, cents = 1250),
      Ride(kilometres = 100),
      Ticket("train", cents = 8900, hasReceipt = true),
      Ticket("museum", cents = 1500, hasReceipt = false)
    )
    val expected = Settlement(3000 + 1250 + 3800 + 8900, List("museum"))
    assert(settle(trip) == expected)
    assert(settle(Nil) == Settlement(0, Nil))
    println(settle(trip))
  }
}
