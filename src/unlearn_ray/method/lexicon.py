"""Closed word lists by which names are told from other capitals, and persons, places and creatures from each other.

Written for this project from general knowledge of English, with older fiction in mind.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MASCULINE_TITLES = _words(
    """mr sir lord king prince duke emperor count earl baron father brother uncle master monsieur squire sultan messrs
    marquis abbot monk grandfather signor don herr viscount esquire friar"""
)
FEMININE_TITLES = _words(
    """mrs miss ms lady queen princess duchess empress countess baroness mother sister aunt mistress madame mademoiselle
    widow madam marchioness abbess nun grandmother nurse signora signorina dame viscountess"""
)
NEUTRAL_TITLES = _words(
    """dr doctor captain capt colonel col major general gen admiral commodore lieutenant lieut sergeant corporal private
    professor prof judge justice inspector constable detective officer president governor mayor senator minister
    reverend rev deacon parson bishop cardinal pope cousin chief sheriff farmer chancellor secretary"""
)
TITLES = MASCULINE_TITLES | FEMININE_TITLES | NEUTRAL_TITLES
# titles that stand before a given name at least as often as before a family name
GIVEN_NAME_TITLES = _words(
    "sir lady king queen prince princess aunt uncle cousin brother sister pope emperor empress don sultan dame"
)
# titles that never name anybody by themselves, however often a book prints them with a capital
BARE_ADDRESS = _words("mr mrs miss ms sir madam messrs capt col dr esq rev lieut gen prof mademoiselle monsieur madame")

SAINT = _words("st ste saint")  # not a title: "St. Clair" is one name

ABBREVIATIONS = _words(
    "mr mrs ms messrs dr st ste esq rev capt col gen lieut lt hon prof jr sr mt no vol viz etc mme mlle co"
)
LINKERS = _words("of de von van du la le")

# words whose capital never makes a name, alone or beside another capital
FUNCTION_WORDS = _words(
    """i i'm i'd i'll i've o oh ah alas hark lo hurrah huzza hush amen yes no well why what who whom whose how
    when where there here this that these those the a an and but or if so my your his her our their its you he
    it we they me him us them not nor for as at by in on to with from is was are were be been do did does will
    would shall should can could must might have has had come go look see tell let take give say said thank now
    then always never nothing something nobody everybody everything perhaps indeed again too very more most much
    many another other such same which while upon after before some all any every she don't won't can't didn't
    isn't it's that's he's she's there's chapter volume page preface contents appendix section scene act canto
    verse figure plate note project gutenberg ebook copyright illustration finis footnote ii iii iv vi vii viii
    ix xi xii xiii xiv xv xvi xvii xviii xix xx pm am"""
)
# words that English capitalises whoever writes; names only beside another capital ("Church Street", "Little Joe")
NOT_ALONE = (
    BARE_ADDRESS
    | SAINT
    | _words(
        """heaven heavens god gods lord lords christ jesus almighty providence deity creator bible gospel scripture
        scriptures testament psalm psalms genesis exodus satan devil christian christians christmas easter sabbath
        michaelmas whitsuntide midsummer lent majesty majesties highness grace excellency honour honor worship lordship
        ladyship reverence sirs ma'am lady ladies gentlemen gentleman parliament government state church crown navy
        army mamma papa house lodge book part letter end letters english latin hebrew monday tuesday wednesday thursday
        friday saturday sunday mondays tuesdays wednesdays thursdays fridays saturdays sundays january february march
        april may june july august september october november december englishman englishmen englishwoman british
        briton britons scotch scottish scot scotchman scotsman welsh welshman irish irishman french frenchman frenchmen
        frenchwoman german germans italian italians spanish spaniard spaniards portuguese dutch dutchman danish dane
        danes swedish norwegian russian russians polish turk turks turkish greek greeks roman romans jew jews jewish
        jewess christianity catholic catholics protestant protestants quaker quakers presbyterian methodist puritan
        mahometan mohammedan muslim indian indians chinese japanese persian persians egyptian egyptians arab arabs
        arabian african africans asiatic oriental european europeans american americans yankee yankees canadian mexican
        hindoo hindu malay tartar moor negro negroes gypsy gypsies north south east west northern southern eastern
        western good dear poor old young little great new first one two three four five six seven eight nine ten"""
    )
)

SPEECH_VERBS = _words(
    """said says say replied cried answered asked exclaimed thought whispered returned shouted continued remarked added
    observed began inquired enquired muttered murmured repeated demanded interrupted screamed sighed sobbed roared
    growled laughed smiled nodded bowed looked sat stood turned felt knew wished seemed wondered declared"""
)
MASCULINE_PRONOUNS = _words("he him his himself he's he'd he'll")
FEMININE_PRONOUNS = _words("she her hers herself she's she'd she'll")
ARTICLES = _words("the a an this that")
PLACE_PREPOSITIONS = _words("in at near into towards from through leaving round to")

PLACE_NOUNS = _words(
    """street square road lane park hall house lodge abbey castle court place buildings garden gardens cottage hill
    island islands isle river lake sea ocean cape bay bridge valley forest wood woods meadow meadows pool brook church
    inn tavern hotel town city village county farm grove crescent terrace row avenue end manor grange priory parsonage
    cliff cave mountain mountains mount point harbor harbour coast beach land fields common green yard station school
    club pond room rooms shire straits channel gate tower palace arms circus bank moor heath down downs"""
)
DEMONYM_ENDINGS = ("ian", "ean", "ese", "ians", "eans")
ROLE_ENDINGS = ("er", "ers", "eer", "or", "ors", "man", "men", "ist", "ists")
PLACE_ENDINGS = tuple(
    _words(
        """shire ville burgh burg borough bury mouth minster haven land lands ford chester cester wick stead thorpe
        polis"""
    )
)

CREATURES = _words(
    """adder ant antelope ape badger bat bear beaver bee beetle bird blackbird boar buffalo bull bunny butterfly calf
    camel canary cat caterpillar cheetah chick chicken chipmunk cobra cock cow coyote crab crane cricket crocodile crow
    cuckoo cub deer dodo dog dolphin donkey dormouse dove dragon dragonfly duck duckling eagle eel elephant elf
    fairy falcon fawn ferret finch fish flamingo fly fox frog giant giraffe gnat gnome goat goblin goose gorilla
    grasshopper griffin gryphon guinea-pig gull hamster hare hawk hedgehog hen heron hippo hog hornet horse hound hyena
    jackal jackdaw jaguar jay kangaroo kitten lamb lark leopard lion lizard llama lobster lynx magpie mermaid mink
    mole mongoose monkey monster moose mosquito moth mouse mule muskrat narwhal newt nightingale octopus ostrich otter
    owl ox oyster panther parrot partridge peacock pelican penguin pheasant phoenix pig pigeon pike pony poodle
    porcupine porpoise possum puppy python quail rabbit raccoon ram rat raven robin rooster salmon scorpion seal
    serpent shark sheep shrew shrimp skunk sloth slug snail snake sparrow sphinx spider squid squirrel stag stallion
    stork swallow swan terrier tiger toad tortoise troll trout turkey turtle unicorn viper vulture walrus wasp weasel
    whale wolf woodchuck woodpecker worm wren yak zebra"""
)
