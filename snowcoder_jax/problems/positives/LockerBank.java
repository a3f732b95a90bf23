import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/**
 * A parcel station has lockers of several heights. Write a class that hands out lockers.
 *
 * <p>{@code store} puts a parcel into the lowest free locker that is high enough and returns the
 * height of that locker, or nothing if no free locker fits. {@code release} makes the locker of a
 * parcel free again. The station may have thousands of lockers but only a few different heights,
 * so the work per call must not grow with the number of lockers.
 */
public final class LockerBank {
    /** Number of free lockers for each height that has at least one. */
    private final TreeMap<Integer, Integer> freeByHeight = new TreeMap<>();

    /** Height of the locker that holds each stored parcel. */
    private final Map<String, Integer> lockerOfParcel = new HashMap<>();

    public LockerBank(int... heights) {
        for (int height : heights) {
            freeByHeight.merge(height, 1, Integer::sum);
        }
    }

    /** Stores a parcel and returns the height of its locker; empty if nothing fits. */
    public Optional<Integer> store(String parcel, int parcelHeight) {
        if (lockerOfParcel.containsKey(parcel)) {
            throw new IllegalArgumentException("already stored: " + parcel);
        }
        // ceilingKey is the smallest height that is not less than the parcel's.
        Integer height = freeByHeight.ceilingKey(parcelHeight);
        if (height == null) {
            return Optional.empty();
        }
        // Returning null from the function removes the entry, so that a height
        // without free lockers is never found by ceilingKey.
        freeByHeight.computeIfPresent(height, (key, count) -> count == 1 ? null : count - 1);
        lockerOfParcel.put(parcel, height);
        return Optional.of(height);
    }

    /** Frees the locker of a parcel that was collected. */
    public void release(String parcel) {
        Integer height = lockerOfParcel.remove(parcel);
        if (height == null) {
            throw new IllegalArgumentException("not stored: " + parcel);
        }
        freeByHeight.merge(height, 1, Integer::sum);
    }

    public static void main(String[] args) {
        LockerBank bank = new LockerBank(20, 20, 45);
        check(bank.store("books", 15).equals(Optional.of(20)));
        check(bank.store("lamp", 30).equals(Optional.of(45)));
        check(bank.store("skis", 30).isEmpty());
        bank.release("lamp");
        check(bank.store("skis", 45).equals(Optional.of(45)));
        System.out.println("all parcels are where they should be");
    }

    private static void check(boolean condition) {
        if (!condition) {
            throw new AssertionError("self-check failed");
        }
    }
}
